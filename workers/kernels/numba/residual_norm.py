"""A residual sum, and its norm in one pass over each row, on a CPU.

D model width; any dims before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.numba.rms_norm import rms_norm


def residual_norm(
    x_D: Tensor, added_D: Tensor | None, w_D: Tensor, eps: float, wide: bool, narrow: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (..., D), as workers.kernels.api.residual_norm says; both norms are one."""
    sum_D = x_D if added_D is None else x_D + added_D
    y_D = rms_norm(sum_D, w_D, eps)
    return sum_D, y_D, y_D
