"""Attention's heads on a CPU: queries and keys normed and turned in one pass over each row.

N sequences, L tokens of each, T = N L tokens, H heads of width C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba.heads import heads_rows, heads_rows_backward


def normed_heads(
    qkv_NL3HC: Tensor, q_gain_C: Tensor, k_gain_C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (N, H, L, C) over rows of tokens, as workers.kernels.api.rotary says."""
    given = (x.to(qkv_NL3HC.dtype) for x in (q_gain_C, k_gain_C, cos, sin))
    heads: tuple[Tensor, Tensor, Tensor] = _NormedHeads.apply(qkv_NL3HC, *given, eps)
    return heads


class _NormedHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv_NL3HC: Tensor,
        q_gain_C: Tensor,
        k_gain_C: Tensor,
        cos: Tensor,
        sin: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        w_2C = torch.stack((q_gain_C, k_gain_C))
        n_sequences, length, _, n_heads, width = qkv_NL3HC.shape
        qkv_T3HC = qkv_NL3HC.flatten(0, 1).contiguous()
        angles = [x.flatten(0, 2).contiguous() for x in (cos, sin)]
        out_3THC = qkv_T3HC.new_empty(3, len(qkv_T3HC), n_heads, width)
        heads_rows(qkv_T3HC, w_2C, *angles, eps, out_3THC)
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
        heads_rows_backward(*d_THC, qkv_T3HC, w_2C, cos_TC, sin_TC, ctx.eps, d_qkv_T3HC, dw_2C)
        return d_qkv_T3HC.view(ctx.shape), *dw_2C.unbind(0), None, None, None
