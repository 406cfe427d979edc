"""Causal attention on a CPU: each head's products through blocks whose sums stay in registers.

torch's fused form calls a library for each head's small products, which packs them anew every time.
Here a head is copied once, and its scores stay in the nearest caches.

N sequences, L tokens of each, H heads, C width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba.activations import _exp
from workers.kernels.numba.blocks import COLUMNS, ROWS, TOGETHER, Integer, rows_from, write_block
from workers.kernels.numba.copies import copy_matrix, turn_matrix
from workers.kernels.numba.library import jit_any_order, jit_inline, operator
from workers.kernels.numba.vectors import lanes_of, larger, largest, load

LANES = lanes_of(COLUMNS)


def attention(
    q_NHLC: Tensor, k_NHLC: Tensor, v_NHLC: Tensor, mask: None, causal: bool, scale: float
) -> Tensor:
    """(N, H, L, C) over rows of tokens, as workers.kernels.api.attention says of causal ones."""
    y_NHLC: Tensor = _CausalAttention.apply(q_NHLC, k_NHLC, v_NHLC, scale)
    return y_NHLC


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NHLC: Tensor, k_NHLC: Tensor, v_NHLC: Tensor, scale: float) -> Tensor:
        # Heads lie token by token, so that this copies nothing.
        heads = [x.transpose(1, 2).contiguous() for x in (q_NHLC, k_NHLC, v_NHLC)]
        y_NLHC = torch.empty_like(heads[0])
        log_sum_NHL = q_NHLC.new_empty(q_NHLC.shape[:3])
        attention_rows(*heads, scale, y_NLHC, log_sum_NHL)
        ctx.save_for_backward(*heads, y_NLHC, log_sum_NHL)
        ctx.scale = scale
        return y_NLHC.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NHLC: Tensor) -> tuple[Tensor | None, ...]:
        *kept, log_sum_NHL = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in kept[:3]]
        dy_NLHC = dy_NHLC.transpose(1, 2).contiguous()
        attention_rows_backward(dy_NLHC, *kept, log_sum_NHL, ctx.scale, *grads)
        return *(grad.transpose(1, 2) for grad in grads), None


@jit_inline
def _head(x_NLHC: Any, n: int, h: int) -> Any:
    """The address of a head's first row."""
    return np.int64(x_NLHC.ctypes.data) + n * x_NLHC.strides[0] + h * x_NLHC.strides[2]


@jit_inline
def _read_head(x_NLHC: Any, n: int, h: int, to: Integer, line: int) -> None:
    """Copy a head's rows to lines at an address."""
    _, length, _, width = x_NLHC.shape
    copy_matrix(x_NLHC, _head(x_NLHC, n, h), x_NLHC.strides[1], length, width, to, line)


@jit_inline
def _turn_head(x_NLHC: Any, n: int, h: int, to: Integer, line: int) -> None:
    """Copy a head's columns to lines at an address."""
    _, length, _, width = x_NLHC.shape
    turn_matrix(x_NLHC, _head(x_NLHC, n, h), x_NLHC.strides[1], length, width, to, line)


@jit_inline
def _write_head(x: Integer, line: int, to_NLHC: Any, n: int, h: int) -> None:
    """Copy lines at an address to a head's rows."""
    _, length, _, width = to_NLHC.shape
    copy_matrix(to_NLHC, x, line, length, width, _head(to_NLHC, n, h), to_NLHC.strides[1])


@jit_any_order
def _multiply(
    a: Integer,
    a_row: int,
    a_step: int,
    b: Integer,
    line: int,
    inner: int,
    c: Integer,
    c_row: int,
    wide: int,
    like: Any,
) -> None:
    """c[r][:] = sum over i < inner of a[r][i] b[i][:], of ROWS rows and `wide` columns or a few
    more, up to a whole block; all are addresses, and what lies between."""
    for column in range(0, wide, TOGETHER):
        columns = (min(TOGETHER, wide - column) + COLUMNS - 1) // COLUMNS * COLUMNS
        offset = column * like.itemsize
        a_6, c_6 = rows_from(a, a_row), rows_from(c + offset, c_row)
        write_block(like, columns, a_6, a_step, b + offset, line, inner, c_6)


@jit_inline
def _top(x_L: Any, n: int) -> Any:
    """The largest of the first n numbers, whole COLUMNS of them and none NaN."""
    x, step = np.int64(x_L.ctypes.data), len(LANES) * x_L.itemsize
    even, odd = load(x_L, LANES, x), load(x_L, LANES, x + step)
    for j in range(2 * step, n * x_L.itemsize, 2 * step):
        even = larger(load(x_L, LANES, x + j), even)
        odd = larger(load(x_L, LANES, x + j + step), odd)
    return largest(larger(even, odd))


@jit_inline
def _exponentials(scores_6L: Any, first: int, scale: Any, total_6: Any, log_sum_L: Any) -> None:
    """Shares of the queries from `first` on, in place of their scores, before they are divided by
    their sums; 0 for keys after a query."""
    end = min(first + ROWS, len(log_sum_L))
    # Whole vectors: a rest would cost as much as all before it.
    whole = (end + COLUMNS - 1) // COLUMNS * COLUMNS
    for r in range(end - first):
        score_L, n = scores_6L[r], first + r + 1
        score_L[n:whole] = -np.inf
        top = _top(score_L, whole)
        total = scores_6L.dtype.type(0)
        for j in range(whole):
            share = _exp((score_L[j] - top) * scale)
            score_L[j] = share
            total += share
        score_L[n:whole] = 0
        total_6[r] = total
        log_sum_L[first + r] = top * scale + math.log(total)


@operator(
    "attention(Tensor q, Tensor k, Tensor v, float scale, Tensor(a!) y, Tensor(b!) log_sum) -> ()"
)
@jit_any_order
def attention_rows(
    q_NLHC: Any, k_NLHC: Any, v_NLHC: Any, scale: float, y_NLHC: Any, log_sum_NHL: Any
) -> None:
    """y = softmax(scale q k^T) v over the keys up to each query, and the logarithm of its sum."""
    n_sequences, length, n_heads, width = q_NLHC.shape
    size, dtype = q_NLHC.itemsize, q_NLHC.dtype
    wide = (width + COLUMNS - 1) // COLUMNS * COLUMNS
    long = (length + ROWS + COLUMNS - 1) // COLUMNS * COLUMNS
    q, v, y = (
        np.zeros((long, wide), dtype),
        np.zeros((long, wide), dtype),
        np.empty((ROWS, wide), dtype),
    )
    k_turned, scores = np.zeros((width, long), dtype), np.zeros((ROWS, long), dtype)
    total_6 = np.empty(ROWS, dtype)
    q0, k0, v0 = np.int64(q.ctypes.data), np.int64(k_turned.ctypes.data), np.int64(v.ctypes.data)
    y0, s0 = np.int64(y.ctypes.data), np.int64(scores.ctypes.data)
    row, line = wide * size, long * size
    for n in range(n_sequences):
        for h in range(n_heads):
            _read_head(q_NLHC, n, h, q0, row)
            _read_head(v_NLHC, n, h, v0, row)
            _turn_head(k_NLHC, n, h, k0, line)
            for first in range(0, length, ROWS):
                end = min(first + ROWS, length)
                _multiply(q0 + first * row, row, size, k0, line, width, s0, line, end, q)
                _exponentials(scores, first, dtype.type(scale), total_6, log_sum_NHL[n, h])
                _multiply(s0, line, size, v0, row, end, y0, row, width, q)
                for t in range(first, end):
                    one, y_C, sum_C = (
                        dtype.type(1) / total_6[t - first],
                        y_NLHC[n, t, h],
                        y[t - first],
                    )
                    for c in range(width):
                        y_C[c] = sum_C[c] * one


@jit_inline
def _score_gradients(
    shares_6L: Any, d_6L: Any, first: int, scale: Any, dy: Any, y: Any, log_sum_L: Any
) -> None:
    """The shares of the queries from `first` on again, from their scores, and the scores'
    gradients from the shares', both in place; 0 for keys after them."""
    end = min(first + ROWS, len(log_sum_L))
    whole = (end + COLUMNS - 1) // COLUMNS * COLUMNS
    for r in range(end - first):
        share_L, d_L, n = shares_6L[r], d_6L[r], first + r + 1
        mean = shares_6L.dtype.type(0)
        for c in range(dy.shape[1]):
            mean += dy[first + r, c] * y[first + r, c]
        log_sum = log_sum_L[first + r]
        for j in range(whole):
            share = _exp(share_L[j] * scale - log_sum)
            share_L[j] = share
            d_L[j] = share * (d_L[j] - mean) * scale
        share_L[n:whole] = 0
        d_L[n:whole] = 0


@jit_any_order
def _sum_over_queries(d: Any, x: Any, length: int, out: Any) -> None:
    """out = d^T x: each key's sum over the queries from it on."""
    size, row, score = x.itemsize, x.strides[0], d.strides[0]
    d0, x0 = np.int64(d.ctypes.data), np.int64(x.ctypes.data)
    out0, wide = np.int64(out.ctypes.data), x.shape[1]
    for first in range(0, length, ROWS):
        here, there = first * row, first * (score + size)
        left = length - first
        _multiply(d0 + there, size, score, x0 + here, row, left, out0 + here, row, wide, x)


@operator(
    "attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor y, Tensor log_sum, "
    "float scale, Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv) -> ()"
)
@jit_any_order
def attention_rows_backward(
    dy_NLHC: Any,
    q_NLHC: Any,
    k_NLHC: Any,
    v_NLHC: Any,
    y_NLHC: Any,
    log_sum_NHL: Any,
    scale: float,
    dq_NLHC: Any,
    dk_NLHC: Any,
    dv_NLHC: Any,
) -> None:
    """The gradients in q, k and v. A head's shares and their gradients are kept whole: those of
    keys and values sum over queries."""
    n_sequences, length, n_heads, width = q_NLHC.shape
    size, dtype = q_NLHC.itemsize, q_NLHC.dtype
    wide = (width + COLUMNS - 1) // COLUMNS * COLUMNS
    long = (length + ROWS + COLUMNS - 1) // COLUMNS * COLUMNS
    heads = np.zeros((5, long, wide), dtype)  # q, k, dy, y and a gradient
    q, k, dy, y, out = heads[0], heads[1], heads[2], heads[3], heads[4]
    turned = np.zeros((2, width, long), dtype)  # k and v
    # Lines of other lengths than powers of two: columns then fall on different cache sets.
    shares, d = np.zeros((long, long + COLUMNS), dtype), np.zeros((long, long + COLUMNS), dtype)
    q0, k0, dy0 = np.int64(q.ctypes.data), np.int64(k.ctypes.data), np.int64(dy.ctypes.data)
    y0 = np.int64(y.ctypes.data)
    out0, turned0 = np.int64(out.ctypes.data), np.int64(turned.ctypes.data)
    shares0, d0 = np.int64(shares.ctypes.data), np.int64(d.ctypes.data)
    row, line, score = wide * size, long * size, shares.strides[0]
    for n in range(n_sequences):
        for h in range(n_heads):
            _read_head(q_NLHC, n, h, q0, row)
            _read_head(k_NLHC, n, h, k0, row)
            _read_head(dy_NLHC, n, h, dy0, row)
            _read_head(y_NLHC, n, h, y0, row)
            _turn_head(k_NLHC, n, h, turned0, line)
            _turn_head(v_NLHC, n, h, turned0 + width * line, line)
            for first in range(0, length, ROWS):
                end, here, there = min(first + ROWS, length), first * row, first * score
                k_turned0, v_turned0 = turned0, turned0 + width * line
                _multiply(
                    q0 + here, row, size, k_turned0, line, width, shares0 + there, score, end, q
                )
                _multiply(dy0 + here, row, size, v_turned0, line, width, d0 + there, score, end, q)
                _score_gradients(
                    shares[first:], d[first:], first, dtype.type(scale), dy, y, log_sum_NHL[n, h]
                )
                _multiply(d0 + there, score, size, k0, row, end, out0 + here, row, width, q)
            _write_head(out0, row, dq_NLHC, n, h)
            _sum_over_queries(d, q, length, out)
            _write_head(out0, row, dk_NLHC, n, h)
            _sum_over_queries(shares, dy, length, out)
            _write_head(out0, row, dv_NLHC, n, h)
