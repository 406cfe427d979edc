"""The loops of rotary: queries and keys normed and turned, in one pass over each head's row.

A row is some 16 to 64 numbers. It is read as vectors, from addresses: a view of an array takes
longer than such a row.

T tokens, H heads of width C, A = C / 2 angles, `lanes` of vectors.
"""

from __future__ import annotations

import math
from typing import Any

from workers.kernels.numba.blocks import Integer, address
from workers.kernels.numba.copies import copy_matrix
from workers.kernels.numba.library import jit_any_order, jit_inline, operator
from workers.kernels.numba.vectors import lanes_of, load, spread, store, total


@jit_inline
def _inverse_rms(like: Any, lanes: Any, x: Integer, width: int, eps: float) -> Any:
    """1 / sqrt(mean(x^2) + eps) of the numbers at an address."""
    squares = spread(lanes, like.dtype.type(0))
    for c in range(0, width * like.itemsize, len(lanes) * like.itemsize):
        part = load(like, lanes, x + c)
        squares = squares + part * part
    return like.dtype.type(1 / math.sqrt(total(squares) / width + eps))


@jit_inline
def _head(
    like: Any,
    lanes: Any,
    x: Integer,
    w: Integer,
    cos: Integer,
    sin: Integer,
    width: int,
    eps: float,
    y: Integer,
) -> None:
    """y: x normed with gains w, and turned; addresses of a row each, half of one of angles."""
    step, half = len(lanes) * like.itemsize, width // 2 * like.itemsize
    scale = spread(lanes, _inverse_rms(like, lanes, x, width, eps))
    for c in range(0, half, step):
        a = load(like, lanes, x + c) * scale * load(like, lanes, w + c)
        b = load(like, lanes, x + half + c) * scale * load(like, lanes, w + half + c)
        cos_c, sin_c = load(like, lanes, cos + c), load(like, lanes, sin + c)
        store(a * cos_c - b * sin_c, y + c)
        store(b * cos_c + a * sin_c, y + half + c)


@jit_inline
def _head_backward(
    like: Any,
    lanes: Any,
    dy: Integer,
    x: Integer,
    w: Integer,
    cos: Integer,
    sin: Integer,
    width: int,
    eps: float,
    d: Integer,
    dw: Integer,
) -> None:
    """d: the gradient in x; that in w is added to dw. With n = x scale and g the gradient turned
    back, d = scale (g w - n mean(g w n)) and dw += g n."""
    step, half = len(lanes) * like.itemsize, width // 2 * like.itemsize
    one = _inverse_rms(like, lanes, x, width, eps)
    scale, projected = spread(lanes, one), spread(lanes, like.dtype.type(0))
    for c in range(0, half, step):
        cos_c, sin_c = load(like, lanes, cos + c), load(like, lanes, sin + c)
        front, back = load(like, lanes, dy + c), load(like, lanes, dy + half + c)
        a, b = front * cos_c + back * sin_c, back * cos_c - front * sin_c
        n_a, n_b = load(like, lanes, x + c) * scale, load(like, lanes, x + half + c) * scale
        store(load(like, lanes, dw + c) + a * n_a, dw + c)
        store(load(like, lanes, dw + half + c) + b * n_b, dw + half + c)
        a, b = a * load(like, lanes, w + c), b * load(like, lanes, w + half + c)
        projected = projected + a * n_a + b * n_b
        store(a, d + c)
        store(b, d + half + c)
    mean = spread(lanes, like.dtype.type(total(projected) * one / width))
    for c in range(0, 2 * half, step):
        store(scale * (load(like, lanes, d + c) - load(like, lanes, x + c) * mean), d + c)


@jit_any_order
def _heads(
    lanes: Any, qkv_T3HC: Any, w_2C: Any, cos_TA: Any, sin_TA: Any, eps: float, out_3THC: Any
) -> None:
    tokens, _, n_heads, width = qkv_T3HC.shape
    row, line = qkv_T3HC.strides[2], qkv_T3HC.strides[1]
    x, y, w = address(qkv_T3HC), address(out_3THC), address(w_2C)
    cos, sin = address(cos_TA), address(sin_TA)
    for t in range(tokens):
        angles = t % len(cos_TA) * cos_TA.strides[0]
        cos_t, sin_t = cos + angles, sin + angles
        for side in range(2):
            here, there, gains = 3 * t + side, side * tokens + t, w + side * row
            for h in range(n_heads):
                from_, to = x + here * line + h * row, y + there * line + h * row
                _head(qkv_T3HC, lanes, from_, gains, cos_t, sin_t, width, eps, to)
        from_, to = x + (3 * t + 2) * line, y + (2 * tokens + t) * line
        copy_matrix(qkv_T3HC, from_, 0, 1, n_heads * width, to, 0)


@jit_any_order
def _heads_backward(
    lanes: Any,
    dq_THC: Any,
    dk_THC: Any,
    dv_THC: Any,
    qkv_T3HC: Any,
    w_2C: Any,
    cos_TA: Any,
    sin_TA: Any,
    eps: float,
    d_qkv_T3HC: Any,
    dw_2C: Any,
) -> None:
    tokens, _, n_heads, width = qkv_T3HC.shape
    row, line = qkv_T3HC.strides[2], qkv_T3HC.strides[1]
    dq, dk, dv = address(dq_THC), address(dk_THC), address(dv_THC)
    x, d, w, dw = address(qkv_T3HC), address(d_qkv_T3HC), address(w_2C), address(dw_2C)
    cos, sin = address(cos_TA), address(sin_TA)
    for t in range(tokens):
        angles = t % len(cos_TA) * cos_TA.strides[0]
        for side in range(2):
            dy = (dk if side else dq) + t * line
            for h in range(n_heads):
                here = (3 * t + side) * line + h * row
                _head_backward(
                    qkv_T3HC,
                    lanes,
                    dy + h * row,
                    x + here,
                    w + side * row,
                    cos + angles,
                    sin + angles,
                    width,
                    eps,
                    d + here,
                    dw + side * row,
                )
        copy_matrix(qkv_T3HC, dv + t * line, 0, 1, n_heads * width, d + (3 * t + 2) * line, 0)


@operator(
    "normed_heads(Tensor qkv, Tensor w, Tensor cos, Tensor sin, float eps, Tensor(a!) out) -> ()"
)
def heads_rows(
    qkv_T3HC: Any, w_2C: Any, cos_TA: Any, sin_TA: Any, eps: float, out_3THC: Any
) -> None:
    """Queries and keys normed over C with their gains, their pairs (i, i + C/2) turned by their
    token's angles; values copied.

    cos_TA, sin_TA: those of token t are in row t modulo their number.
    """
    _heads(lanes_of(cos_TA.shape[1]), qkv_T3HC, w_2C, cos_TA, sin_TA, eps, out_3THC)


@operator(
    "normed_heads_backward(Tensor dq, Tensor dk, Tensor dv, Tensor qkv, Tensor w, Tensor cos, "
    "Tensor sin, float eps, Tensor(a!) d_qkv, Tensor(b!) dw) -> ()"
)
def heads_rows_backward(
    dq_THC: Any, dk_THC: Any, dv_THC: Any, qkv_T3HC: Any, w_2C: Any, cos_TA: Any, *rest: Any
) -> None:
    """The gradient in qkv, and those in the gains added to what is there."""
    lanes = lanes_of(cos_TA.shape[1])
    _heads_backward(lanes, dq_THC, dk_THC, dv_THC, qkv_T3HC, w_2C, cos_TA, *rest)
