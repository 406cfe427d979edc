"""RMSNorm whose backward keeps its input and one number a row.

D normalised width; any dims before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.dispatch import compiled_ops, triton_ops

EPS = 1e-6


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float = EPS) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * w over the last dim; differentiable once in x and w."""
    w_D = w_D.to(x_D.dtype)
    ops = triton_ops(x_D, w_D) or compiled_ops(x_D, w_D)
    return _RMSNorm.apply(x_D, w_D, eps) if ops is None else ops.rms_norm(x_D, w_D, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
        scale_1 = inverse_rms(x_D, eps)
        ctx.save_for_backward(x_D, w_D, scale_1)
        return (x_D * scale_1).mul_(w_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_D: Tensor) -> tuple[Tensor, Tensor, None]:
        x_D, w_D, scale_1 = ctx.saved_tensors
        return *norm_backward(dy_D, x_D, w_D, scale_1), None


def inverse_rms(x_D: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps), the last dim kept as 1; in float32 or wider."""
    wide = torch.promote_types(x_D.dtype, torch.float32)
    norm_1 = torch.linalg.vector_norm(x_D, dim=-1, keepdim=True, dtype=wide)
    return torch.rsqrt_(norm_1.square_().div_(x_D.shape[-1]).add_(eps)).to(x_D.dtype)


def norm_backward(dy_D: Tensor, x_D: Tensor, w_D: Tensor, scale_1: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients in x and w of y = n w, n = x scale, for the gradient dy of y."""
    n_D = x_D * scale_1
    dyn_D = dy_D * n_D
    dw_D = dyn_D.flatten(0, -2).sum(0)
    # dx = scale (dy w - n mean(dy w n))
    mean_1 = (dyn_D @ w_D).unsqueeze(-1).div_(-x_D.shape[-1])
    dx_D = torch.mul(dy_D, w_D, out=dyn_D).addcmul_(n_D, mean_1).mul_(scale_1)
    return dx_D, dw_D
