"""Weights of chosen rows, spread over all rows, by torch's scatter.

T tokens, N rows, K choices a token.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spread(
    weight_TK: Tensor | None, index_TK: Tensor, n_rows: int, distinct: int, dtype: torch.dtype
) -> Tensor:
    """As workers.kernels.api.spread says."""
    n_tokens = index_TK.shape[0]
    y_TN = torch.zeros(n_tokens, n_rows, dtype=dtype, device=index_TK.device)
    weight_TK = y_TN.new_ones(index_TK.shape) if weight_TK is None else weight_TK.to(dtype)
    return y_TN.scatter_add(1, index_TK, weight_TK)
