"""The loops of rms_norm and rotary, in one pass over each row: RMSNorm, and queries and keys that
are normed and turned.

T tokens, D normalised width, H heads of width C.
"""

from __future__ import annotations

import math
from typing import Any

from workers.kernels.numba.library import jit_any_order, operator


@jit_any_order
def _inverse_rms(x_D: Any, eps: float) -> Any:
    total = x_D.dtype.type(0)
    for d in range(len(x_D)):
        total += x_D[d] * x_D[d]
    return x_D.dtype.type(1 / math.sqrt(total / len(x_D) + eps))


@jit_any_order
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


@operator(
    "normed_heads(Tensor qkv, Tensor w, Tensor cos, Tensor sin, float eps, Tensor(a!) out) -> ()"
)
@jit_any_order
def heads_rows(
    qkv_T3HC: Any, w_2C: Any, cos_TC: Any, sin_TC: Any, eps: float, out_3THC: Any
) -> None:
    """Queries and keys normed over C with their gains, their pairs (i, i + C/2) turned by their
    token's angles; values copied.

    cos_TC, sin_TC: of the C/2 angles; those of token t are in row t modulo their number.
    """
    n_heads, half = qkv_T3HC.shape[2], cos_TC.shape[1]
    for t in range(len(qkv_T3HC)):
        cos_C, sin_C = cos_TC[t % len(cos_TC)], sin_TC[t % len(cos_TC)]
        for side in range(2):
            w_C = w_2C[side]
            for h in range(n_heads):
                x_C, y_C = qkv_T3HC[t, side, h], out_3THC[side, t, h]
                scale = _inverse_rms(x_C, eps)
                for c in range(half):
                    a, b = x_C[c] * scale * w_C[c], x_C[c + half] * scale * w_C[c + half]
                    y_C[c] = a * cos_C[c] - b * sin_C[c]
                    y_C[c + half] = b * cos_C[c] + a * sin_C[c]
        out_3THC[2, t] = qkv_T3HC[t, 2]


@operator(
    "normed_heads_backward(Tensor dq, Tensor dk, Tensor dv, Tensor qkv, Tensor w, Tensor cos, "
    "Tensor sin, float eps, Tensor(a!) d_qkv, Tensor(b!) dw) -> ()"
)
@jit_any_order
def heads_rows_backward(
    dq_THC: Any,
    dk_THC: Any,
    dv_THC: Any,
    qkv_T3HC: Any,
    w_2C: Any,
    cos_TC: Any,
    sin_TC: Any,
    eps: float,
    d_qkv_T3HC: Any,
    dw_2C: Any,
) -> None:
    """The gradient in qkv, and those in the gains added to what is there."""
    n_heads, half = qkv_T3HC.shape[2], cos_TC.shape[1]
    turned_C = dq_THC[0, 0].copy()
    for t in range(len(qkv_T3HC)):
        cos_C, sin_C = cos_TC[t % len(cos_TC)], sin_TC[t % len(cos_TC)]
        for side in range(2):
            for h in range(n_heads):
                dy_C = dk_THC[t, h] if side else dq_THC[t, h]
                for c in range(half):
                    turned_C[c] = dy_C[c] * cos_C[c] + dy_C[c + half] * sin_C[c]
                    turned_C[c + half] = dy_C[c + half] * cos_C[c] - dy_C[c] * sin_C[c]
                x_C, d_C = qkv_T3HC[t, side, h], d_qkv_T3HC[t, side, h]
                scale = _inverse_rms(x_C, eps)
                _norm_backward(turned_C, x_C, w_2C[side], scale, d_C, dw_2C[side])
        d_qkv_T3HC[t, 2] = dv_THC[t]
