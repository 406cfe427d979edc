"""Grouped matrix product: rows sorted by expert, one matrix an expert.

P rows (token, expert pairs sorted by expert), B experts, I and O inner and outer widths.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import lowered
from workers.kernels.torch.grouped import grouped_mm as torch_form


def grouped_mm(x_PI: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
    """(P, O): y[p] = x[p] @ w[expert of p], for rows sorted by expert.

    Differentiable once in x and w; FLOPs 2 P I O. Raises ValueError for counts that are not P's.

    x_PI: (P, I).
    w_BIO: (B, I, O), of any strides.
    counts: rows of each expert, B of them, summing to P.
    """
    if len(counts) != w_BIO.shape[0] or sum(counts) != x_PI.shape[0]:
        raise ValueError(
            f"counts must give the {x_PI.shape[0]} rows of {w_BIO.shape[0]} experts: "
            f"got {sum(counts)} rows of {len(counts)}"
        )
    x_PI, w_BIO = lowered(x_PI), lowered(w_BIO)
    return form("grouped_mm", torch_form, x_PI, w_BIO)(x_PI, w_BIO, counts)
