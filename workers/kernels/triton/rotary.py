"""Attention's heads on RMSNorm's kernels; torch turns them.

N sequences, L tokens of each, H heads, C width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.triton.rms_norm import rms_norm


def normed_heads(
    qkv_NL3HC: Tensor, w_2C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (N, H, L, C), as workers.kernels.api.rotary says."""
    q, k, v = qkv_NL3HC.permute(2, 0, 3, 1, 4)
    q, k = (_turned(rms_norm(x, w_C, eps), cos, sin) for x, w_C in ((q, w_2C[0]), (k, w_2C[1])))
    return q, k, v


def _turned(x_NHLC: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x_NHLC.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
