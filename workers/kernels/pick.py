"""A gather that keeps little for its backward pass.

R entries of a row, K of them chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pick(score: Tensor, index: Tensor) -> Tensor:
    """(..., R) and places (..., K) -> the scores there, (..., K).

    `score.gather(-1, index)`, which would keep all scores until its backward pass; this keeps the
    places, in half their room. Differentiable in the scores.
    """
    picked: Tensor = _Pick.apply(score, index)
    return picked


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index.int())
        ctx.shape = score.shape
        return score.gather(-1, index)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return dy.new_zeros(ctx.shape).scatter_add_(-1, index.long(), dy), None
