"""Attention's heads: queries and keys RMS-normed and turned by their positions, in torch.

N sequences, L tokens of each, H heads, C width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.torch.rms_norm import inverse_rms, norm_backward


def normed_heads(
    qkv_NL3HC: Tensor, q_gain_C: Tensor, k_gain_C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (N, H, L, C), as workers.kernels.api.rotary says."""
    dtype = qkv_NL3HC.dtype
    q_gain_C, k_gain_C, cos, sin = (x.to(dtype) for x in (q_gain_C, k_gain_C, cos, sin))
    q, k, v = heads_3NHLC = qkv_NL3HC.permute(2, 0, 3, 1, 4)
    if not torch.is_grad_enabled():  # both at once, as nothing has to be kept of either
        w_2C = torch.stack((q_gain_C, k_gain_C))
        qk = F.rms_norm(heads_3NHLC[:2], w_2C.shape[1:], eps=eps) * w_2C[:, None, None, None]
        q, k = rotate(qk, cos, sin)
        return q, k, v
    turn = _NormAndRotate.apply
    return turn(q, q_gain_C, cos, sin, eps), turn(k, k_gain_C, cos, sin, eps), v


class _NormAndRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NHLC: Tensor, w_C: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> Tensor:
        scale = inverse_rms(x_NHLC, eps)
        ctx.save_for_backward(x_NHLC, w_C, scale, cos, sin)
        return rotate((x_NHLC * scale).mul_(w_C), cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NHLC: Tensor) -> tuple[Tensor | None, ...]:
        x_NHLC, w_C, scale, cos, sin = ctx.saved_tensors
        turned_back = rotate(dy_NHLC, cos, -sin)
        return *norm_backward(turned_back, x_NHLC, w_C, scale), None, None, None


def rotate(x_NHLC: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + C/2) of each head by their angles."""
    a, b = x_NHLC.chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # which follows no `out`
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    y_NHLC = torch.empty_like(x_NHLC)
    first, second = y_NHLC.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return y_NHLC
