"""Which entries are the largest.

R entries of a row, K of them chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.torch.topk import top_indices as torch_form


@torch.no_grad()
def top_indices(score: Tensor, k: int, *, ordered: bool = True) -> Tensor:
    """(..., R) -> (..., K): where the k largest of each row are.

    The same as `score.topk(k).indices` for numbers; equal ones come in any order.

    score: (..., R).
    k: at most R.
    ordered: whether the largest come first.
    """
    return form("top_indices", torch_form, score, size=k)(score, k, ordered)
