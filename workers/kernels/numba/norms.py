"""The loops of rms_norm, in one pass over each row.

T tokens, D normalised width.
"""

from __future__ import annotations

import math
from typing import Any

from workers.kernels.numba.library import jit_any_order, jit_inline, operator


@jit_inline
def _inverse_rms(x_D: Any, eps: float) -> Any:
    total = x_D.dtype.type(0)
    for d in range(len(x_D)):
        total += x_D[d] * x_D[d]
    return x_D.dtype.type(1 / math.sqrt(total / len(x_D) + eps))


@jit_inline
def _norm_backward(dy_D: Any, x_D: Any, w_D: Any, scale: Any, dx_D: Any, dw_D: Any) -> None:
    """dx = scale (dy w - n mean(dy w n)) and dw += dy n, with n = x scale."""
    total = x_D.dtype.type(0)
    for d in range(len(x_D)):
        normed = x_D[d] * scale
        total += dy_D[d] * w_D[d] * normed
        dw_D[d] += dy_D[d] * normed
    mean = total * scale / len(x_D)
    mean = x_D.dtype.type(mean)
    for d in range(len(x_D)):
        dx_D[d] = scale * (dy_D[d] * w_D[d] - x_D[d] * mean)


@operator("rms_norm(Tensor x, Tensor w, float eps, Tensor(a!) y, Tensor(b!) scale) -> ()")
@jit_any_order
def rms_norm_rows(x_TD: Any, w_D: Any, eps: float, y_TD: Any, scale_T: Any) -> None:
    """y = x scale w, with scale = 1 / sqrt(mean(x^2) + eps)."""
    for t in range(len(x_TD)):
        x_D, y_D = x_TD[t], y_TD[t]
        scale = _inverse_rms(x_D, eps)
        scale_T[t] = scale
        for d in range(len(x_D)):
            y_D[d] = x_D[d] * scale * w_D[d]


@operator(
    "rms_norm_backward(Tensor dy, Tensor x, Tensor w, Tensor scale, Tensor(a!) dx, "
    "Tensor(b!) dw) -> ()"
)
@jit_any_order
def rms_norm_rows_backward(
    dy_TD: Any, x_TD: Any, w_D: Any, scale_T: Any, dx_TD: Any, dw_D: Any
) -> None:
    """The gradient in x, and that in w added to what is there."""
    for t in range(len(x_TD)):
        _norm_backward(dy_TD[t], x_TD[t], w_D, scale_T[t], dx_TD[t], dw_D)
