"""RMSNorm whose backward keeps its input and one number a row.

D normalised width; any dims before it.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.torch.rms_norm import rms_norm as torch_form

EPS = 1e-6


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float = EPS) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * w over the last dim; differentiable once in x and w.

    x_D: (..., D).
    w_D: (D,), taken in x's dtype.
    """
    w_D = w_D.to(x_D.dtype)
    return form("rms_norm", torch_form, x_D, w_D)(x_D, w_D, eps)
