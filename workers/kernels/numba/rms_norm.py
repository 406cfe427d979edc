"""RMSNorm on a CPU, in one pass over each row.

T rows, D normalised width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.api.autograd import RMSNorm
from workers.kernels.numba.norms import rms_norm_rows, rms_norm_rows_backward


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """(..., D), as workers.kernels.api.rms_norm says."""
    y_D: Tensor = RMSNorm.apply(x_D, w_D, eps, _norm, _norm_backward)
    return y_D


def _norm(x_D: Tensor, w_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x_TD = _rows(x_D)
    y_TD, scale_T = torch.empty_like(x_TD), x_TD.new_empty(len(x_TD))
    rms_norm_rows(x_TD, w_D, eps, y_TD, scale_T)
    return y_TD.view(x_D.shape), scale_T


def _norm_backward(
    dy_D: Tensor, x_D: Tensor, w_D: Tensor, scale_T: Tensor
) -> tuple[Tensor, Tensor]:
    x_TD = _rows(x_D)
    dx_TD, dw_D = torch.empty_like(x_TD), torch.zeros_like(w_D)
    rms_norm_rows_backward(_rows(dy_D), x_TD, w_D, scale_T, dx_TD, dw_D)
    return dx_TD.view(dy_D.shape), dw_D


def _rows(x_D: Tensor) -> Tensor:
    return x_D.reshape(-1, x_D.shape[-1]).contiguous()
