"""Which entries are the largest, and their values.

R entries of a row, K of them chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.dispatch import compiled_ops

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
CHUNK_BYTES = 1 << 20  # of a temporary: a few rows at a time stay in cache


@torch.no_grad()
def top_indices(score: Tensor, k: int, *, ordered: bool = True) -> Tensor:
    """(..., R) -> (..., K): where the k largest of each row are, the largest first if `ordered`.

    The same as `score.topk(k).indices` for numbers; equal ones come in any order. On the CPU few
    are found by workers.kernels.numba. Of many, the comparison of floats, which must look for
    NaN, is most of topk's time: integers that lie in the same order are compared in its place.
    """
    ops = compiled_ops(score)
    if ops is not None and k <= ops.MOST_CHOICES:
        return ops.top_indices(score, k)
    bits = BITS.get(score.dtype)
    if score.device.type != "cpu" or bits is None or score.numel() == 0:
        return score.topk(k, sorted=ordered).indices
    rows = score.reshape(-1, score.shape[-1])
    chunk = max(1, CHUNK_BYTES // (rows.shape[1] * rows.itemsize))
    found = [_ranks(part.view(bits)).topk(k, sorted=ordered).indices for part in rows.split(chunk)]
    return torch.cat(found).view(*score.shape[:-1], k)


def _ranks(bits: Tensor) -> Tensor:
    """The bits of floats as integers that lie in the floats' order: without the sign, negative
    floats lie in reverse."""
    sign = 8 * bits.itemsize - 1
    return (bits >> sign).bitwise_and_(torch.iinfo(bits.dtype).max).bitwise_xor_(bits)


def pick(score: Tensor, index: Tensor) -> Tensor:
    """(..., R) and places (..., K) -> the scores there, (..., K).

    `score.gather(-1, index)`, which would keep all scores until its backward pass; this keeps the
    places, in half their room. Differentiable in the scores.
    """
    return _Pick.apply(score, index)


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
