"""Grouped matrix product: rows sorted by expert, one matrix an expert.

P rows (token, expert pairs sorted by expert), B experts, I and O inner and outer widths.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import lowered
from workers.kernels.pairs import Loads
from workers.kernels.torch.grouped import grouped_mm as torch_form


def grouped_mm(x_PI: Tensor, w_BIO: Tensor, loads: Loads | list[int]) -> Tensor:
    """(P, O): y[p] = x[p] @ w[expert of p], for rows sorted by expert.

    Differentiable once in x and w; FLOPs 2 P I O. Raises ValueError for counts, known to the
    host, that are not P's.

    x_PI: (P, I).
    w_BIO: (B, I, O), of any strides.
    loads: rows of each expert, B counts that sum to P.
    """
    counts = loads if isinstance(loads, list) else None  # a GPU's are not asked for
    n_rows, n_experts = x_PI.shape[0], w_BIO.shape[0]
    if len(loads) != n_experts or (counts is not None and sum(counts) != n_rows):
        given = "" if counts is None else f"{sum(counts)} rows of "
        raise ValueError(
            f"counts must give the {n_rows} rows of {n_experts} experts: got {given}{len(loads)}"
        )
    loads = Loads(loads) if isinstance(loads, list) else loads
    x_PI, w_BIO = lowered(x_PI), lowered(w_BIO)
    return form("grouped_mm", torch_form, x_PI, w_BIO)(x_PI, w_BIO, loads)
