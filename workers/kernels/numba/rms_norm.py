"""workers.kernels.torch.rms_norm and the heads of workers.kernels.torch.rotary on a CPU.

N sequences, L tokens of each, T = N L tokens, D normalised width, H heads of width C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba import ops


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * w over the last dim."""
    return _RMSNorm.apply(x_D, w_D, eps)


def normed_heads(
    qkv_NL3HC: Tensor, w_2C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, normed and turned, and values, each (N, H, L, C) over rows of tokens."""
    return _Heads.apply(qkv_NL3HC, w_2C, cos, sin, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
        x_TD = x_D.reshape(-1, x_D.shape[-1]).contiguous()
        y_TD, scale_T = torch.empty_like(x_TD), x_TD.new_empty(len(x_TD))
        ops.rms_norm(x_TD, w_D, eps, y_TD, scale_T)
        ctx.save_for_backward(x_TD, w_D, scale_T)
        return y_TD.view(x_D.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_D: Tensor) -> tuple[Tensor, Tensor, None]:
        x_TD, w_D, scale_T = ctx.saved_tensors
        dx_TD, dw_D = torch.empty_like(x_TD), torch.zeros_like(w_D)
        dy_TD = dy_D.reshape(x_TD.shape).contiguous()
        ops.rms_norm_backward(dy_TD, x_TD, w_D, scale_T, dx_TD, dw_D)
        return dx_TD.view(dy_D.shape), dw_D, None


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_NL3HC: Tensor, w_2C: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_sequences, length, _, n_heads, width = qkv_NL3HC.shape
        qkv_T3HC = qkv_NL3HC.flatten(0, 1).contiguous()
        angles = [x.flatten(0, 2).contiguous() for x in (cos, sin)]
        out_3THC = qkv_T3HC.new_empty(3, len(qkv_T3HC), n_heads, width)
        ops.normed_heads(qkv_T3HC, w_2C, *angles, eps, out_3THC)
        ctx.save_for_backward(qkv_T3HC, w_2C, *angles)
        ctx.eps, ctx.shape = eps, qkv_NL3HC.shape
        shape = n_sequences, length, n_heads, width
        q, k, v = (x_THC.view(shape).transpose(1, 2) for x_THC in out_3THC.unbind(0))
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_NHLC: Tensor) -> tuple[Tensor | None, ...]:
        qkv_T3HC, w_2C, cos_TC, sin_TC = ctx.saved_tensors
        # Attention's gradients lie token by token, so that this copies nothing.
        d_THC = [d.transpose(1, 2).flatten(0, 1).contiguous() for d in d_NHLC]
        d_qkv_T3HC, dw_2C = torch.empty_like(qkv_T3HC), torch.zeros_like(w_2C)
        ops.normed_heads_backward(
            *d_THC, qkv_T3HC, w_2C, cos_TC, sin_TC, ctx.eps, d_qkv_T3HC, dw_2C
        )
        return d_qkv_T3HC.view(ctx.shape), dw_2C, None, None, None
