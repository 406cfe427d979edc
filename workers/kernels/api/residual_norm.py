"""What a layer adds to the residual stream, and the RMSNorm by which the next one reads it.

D model width; any dims before it.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import product_dtype
from workers.kernels.api.rms_norm import EPS
from workers.kernels.place import kind
from workers.kernels.torch.residual_norm import residual_norm as torch_form


class Normed(NamedTuple):
    """Three tensors of one shape.

    sum_D: the stream, (..., D).
    wide_D: its norm in its own dtype, for what decides, and adds.
    narrow_D: the norm in the dtype of products. The same as `wide_D` where that is one, and on a
        CPU, whose forms round for themselves.
    """

    sum_D: Tensor
    wide_D: Tensor
    narrow_D: Tensor


def residual_norm(
    x_D: Tensor, added_D: Tensor | None, w_D: Tensor, *, wide: bool = True, eps: float = EPS
) -> Normed:
    """x + added, and RMSNorm of that times w: differentiable once in all three.

    x_D: (..., D).
    added_D: (..., D), of x's dtype or that of products; None for nothing.
    w_D: (D,), taken in x's dtype.
    wide: whether anybody reads `wide_D`; else it is `narrow_D`.
    """
    w_D = w_D.to(x_D.dtype)
    narrow = x_D.dtype if kind(x_D) == "cpu" else product_dtype(x_D)
    run = form("residual_norm", torch_form, x_D)
    return Normed(*run(x_D, added_D, w_D, eps, wide, narrow))
