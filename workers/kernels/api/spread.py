"""Weights of chosen rows, spread over all rows: how a GPU reads a table of which it reads much.

T tokens, N rows, K choices a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.torch.spread import spread as torch_form


def spread(
    weight_TK: Tensor | None, index_TK: Tensor, n_rows: int, distinct: int, dtype: torch.dtype
) -> Tensor:
    """(T, N) in `dtype`: each token's weights at the rows that it chose, their sum where it chose
    one several times, 0 elsewhere. Differentiable once in the weights.

    weight_TK: (T, K), or None for all ones, and no gradient.
    index_TK: (T, K), 0 to n_rows - 1.
    distinct: how many choices, one after the other, are never of the same row; it divides K.
    """
    run = form("spread", torch_form, index_TK if weight_TK is None else weight_TK, size=n_rows)
    return run(weight_TK, index_TK, n_rows, distinct, dtype)
