"""RMSNorm in torch.

D normalised width; any dims before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.kernels.api.autograd import RMSNorm


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """(..., D), as workers.kernels.api.rms_norm says."""
    if not torch.is_grad_enabled():  # in one call, which nothing has to keep
        return F.rms_norm(x_D, w_D.shape, w_D, eps)
    y_D: Tensor = RMSNorm.apply(x_D, w_D, eps, norm, norm_backward)
    return y_D


def norm(x_D: Tensor, w_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """y, and 1 / sqrt(mean(x^2) + eps)."""
    scale_1 = inverse_rms(x_D, eps)
    return (x_D * scale_1).mul_(w_D), scale_1


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
