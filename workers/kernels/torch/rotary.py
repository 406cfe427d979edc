"""Attention's heads: queries and keys RMS-normed and turned by their positions.

N sequences, L tokens of each, H heads, C width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.dispatch import compiled_ops, triton_ops
from workers.kernels.torch.rms_norm import EPS, inverse_rms, norm_backward


def normed_heads(
    qkv_NL3HC: Tensor, w_2C: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, each through `norm_and_rotate` with its gains, and values, (N, H, L, C).

    cos, sin: (N or 1, 1, L, C/2).  Differentiable once in qkv and w.
    """
    w_2C, cos, sin = (x.to(qkv_NL3HC.dtype) for x in (w_2C, cos, sin))
    ops = compiled_ops(qkv_NL3HC, w_2C)
    if ops is not None:
        return ops.normed_heads(qkv_NL3HC, w_2C, cos, sin, EPS)
    q, k, v = qkv_NL3HC.permute(2, 0, 3, 1, 4)
    return norm_and_rotate(q, w_2C[0], cos, sin), norm_and_rotate(k, w_2C[1], cos, sin), v


def norm_and_rotate(x_NHLC: Tensor, w_C: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RMSNorm over C with gains w, then the pairs (i, i + C/2) turned by their angles.

    cos, sin: (N or 1, 1, L, C/2).  Differentiable once in x and w.
    """
    w_C, cos, sin = (x.to(x_NHLC.dtype) for x in (w_C, cos, sin))
    ops = triton_ops(x_NHLC, w_C)
    if ops is None:
        return _NormAndRotate.apply(x_NHLC, w_C, cos, sin)
    a, b = ops.rms_norm(x_NHLC, w_C, EPS).chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class _NormAndRotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NHLC: Tensor, w_C: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        scale = inverse_rms(x_NHLC, EPS)
        ctx.save_for_backward(x_NHLC, w_C, scale, cos, sin)
        return rotate((x_NHLC * scale).mul_(w_C), cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NHLC: Tensor) -> tuple[Tensor | None, ...]:
        x_NHLC, w_C, scale, cos, sin = ctx.saved_tensors
        turned_back = rotate(dy_NHLC, cos, -sin)
        return *norm_backward(turned_back, x_NHLC, w_C, scale), None, None


def rotate(x_NHLC: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + C/2) of each head by their angles."""
    a, b = x_NHLC.chunk(2, dim=-1)
    y_NHLC = torch.empty_like(x_NHLC)
    first, second = y_NHLC.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return y_NHLC
