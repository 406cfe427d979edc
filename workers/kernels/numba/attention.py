"""Causal attention on a CPU: each head's products through blocks whose sums stay in registers.

torch's fused form calls a library for each head's small products, which packs them anew every time.
Here a head is copied once, and its scores stay in the nearest caches.

N sequences, L tokens of each, H heads, C width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba.activations import _exp
from workers.kernels.numba.grouped import COLUMNS, ROWS, Integer, write_block
from workers.kernels.numba.library import jit_any_order, operator

# A largest number, too, is found several at a time where none may be NaN.
jit_numbers = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nnan", "nsz"}
)


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


@jit_any_order
def _rows(first: Integer, step: int) -> Any:
    """Addresses of `ROWS` places that are `step` apart."""
    return (
        first,
        first + step,
        first + 2 * step,
        first + 3 * step,
        first + 4 * step,
        first + 5 * step,
    )


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
    for column in range(0, wide, COLUMNS):
        offset = column * like.itemsize
        write_block(
            like, _rows(a, a_row), a_step, b + offset, line, inner, _rows(c + offset, c_row)
        )


@jit_numbers
def _largest(x_L: Any, n: int) -> Any:
    """Of the first n numbers."""
    top = x_L[0]
    for j in range(1, n):
        top = x_L[j] if x_L[j] > top else top
    return top


@jit_any_order
def _exponentials(scores_6L: Any, first: int, scale: Any, total_6: Any, log_sum_L: Any) -> None:
    """Shares of the queries from `first` on, in place of their scores, before they are divided by
    their sums; 0 for keys after a query."""
    end = min(first + ROWS, len(log_sum_L))
    # Whole vectors: a rest would cost as much as all before it.
    whole = (end + COLUMNS - 1) // COLUMNS * COLUMNS
    for r in range(end - first):
        score_L, n = scores_6L[r], first + r + 1
        score_L[n:whole] = -np.inf
        top = _largest(score_L, whole)
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
            for t in range(length):
                for c in range(width):
                    q[t, c] = q_NLHC[n, t, h, c]
                    v[t, c] = v_NLHC[n, t, h, c]
                    k_turned[c, t] = k_NLHC[n, t, h, c]
            for first in range(0, length, ROWS):
                end = min(first + ROWS, length)
                _multiply(q0 + first * row, row, size, k0, line, width, s0, line, end, q)
                _exponentials(scores, first, dtype.type(scale), total_6, log_sum_NHL[n, h])
                _multiply(s0, line, size, v0, row, end, y0, row, width, q)
                for t in range(first, end):
                    one = dtype.type(1) / total_6[t - first]
                    for c in range(width):
                        y_NLHC[n, t, h, c] = y[t - first, c] * one


@jit_any_order
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


@jit_any_order
def _copy_head(x: Any, to_NLHC: Any, n: int, h: int) -> None:
    for t in range(to_NLHC.shape[1]):
        for c in range(to_NLHC.shape[3]):
            to_NLHC[n, t, h, c] = x[t, c]


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
    out0, turned0 = np.int64(out.ctypes.data), np.int64(turned.ctypes.data)
    shares0, d0 = np.int64(shares.ctypes.data), np.int64(d.ctypes.data)
    row, line, score = wide * size, long * size, shares.strides[0]
    for n in range(n_sequences):
        for h in range(n_heads):
            for t in range(length):
                for c in range(width):
                    q[t, c] = q_NLHC[n, t, h, c]
                    k[t, c] = k_NLHC[n, t, h, c]
                    dy[t, c] = dy_NLHC[n, t, h, c]
                    y[t, c] = y_NLHC[n, t, h, c]
                    turned[0, c, t] = k_NLHC[n, t, h, c]
                    turned[1, c, t] = v_NLHC[n, t, h, c]
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
            _copy_head(out, dq_NLHC, n, h)
            _sum_over_queries(d, q, length, out)
            _copy_head(out, dk_NLHC, n, h)
            _sum_over_queries(shares, dy, length, out)
            _copy_head(out, dv_NLHC, n, h)
