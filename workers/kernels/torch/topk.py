"""Which entries are the largest, by torch's topk.

R entries of a row, K of them chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.place import kind

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
CHUNK_BYTES = 1 << 20  # of a temporary: a few rows at a time stay in cache
FEW = 1 << 13  # scores, among which the calls take longer than the comparisons


def top_indices(score: Tensor, k: int, ordered: bool) -> Tensor:
    """(..., K), as workers.kernels.api.topk says.

    On a CPU the comparison of floats, which must look for NaN, is most of topk's time: integers
    that lie in the same order are compared in its place.
    """
    bits = BITS.get(score.dtype)
    if kind(score) != "cpu" or bits is None or score.numel() <= FEW:
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
