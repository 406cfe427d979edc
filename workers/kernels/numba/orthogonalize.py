"""Newton-Schulz on a CPU: a matrix's products, and what lies between them, stay in cache.

torch's batched products call a library for each small matrix, which packs it anew, and what lies
between them goes through memory. Products of polynomials of one matrix are symmetric: one half of
each is computed here.

B matrices, M rows and N columns of each; upright it has `length` rows and K columns, K the smaller.
All arrays have room for whole blocks, and zeros in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.kernels.numba.blocks import (
    COLUMNS,
    ROWS,
    TOGETHER,
    add_block,
    address,
    rows_from,
    write_block,
)
from workers.kernels.numba.copies import copy_matrix, turn_block, turn_matrix
from workers.kernels.numba.library import jit_any_order, jit_inline, operator
from workers.kernels.torch.orthogonalize import EPS, Polynomial

TERMS = 128  # of a sum at a time: what they are of stays in the nearest cache


def orthogonalize(g_BMN: Tensor, polynomial: Polynomial, steps: int, by_gram: bool) -> Tensor:
    """(B, M, N), as workers.kernels.api.orthogonalize says."""
    out_BMN = torch.empty(g_BMN.shape, dtype=g_BMN.dtype)
    newton_schulz(g_BMN.contiguous(), *polynomial, steps, by_gram, out_BMN)
    return out_BMN


@jit_any_order
def _multiply(
    a: Any, a_row: int, a_step: int, b: Any, terms: int, rows: int, symmetric: bool, c: Any
) -> None:
    """c = a b, with a[r][i] at r a_row + i a_step bytes, of all columns but the last COLUMNS.

    symmetric: of c what lies right of the diagonal is computed, and the rest copied.
    """
    a0, b0, c0 = address(a), address(b), address(c)
    size, line, c_line = a.itemsize, b.strides[0], c.strides[0]
    columns = b.shape[1] - COLUMNS
    for first in range(0, terms, TERMS):
        n = min(TERMS, terms - first)
        for column in range(0, columns, TOGETHER):
            end = min(column + TOGETHER, columns)
            for r in range(0, min(rows, end) if symmetric else rows, ROWS):
                start = max(column, r // COLUMNS * COLUMNS) if symmetric else column
                here, there = b0 + first * line + start * size, c0 + r * c_line + start * size
                a_6, c_6 = (
                    rows_from(a0 + r * a_row + first * a_step, a_row),
                    rows_from(there, c_line),
                )
                if first:
                    add_block(a, end - start, a_6, a_step, here, line, n, c_6)
                else:
                    write_block(a, end - start, a_6, a_step, here, line, n, c_6)
    if symmetric:
        for i in range(0, columns, COLUMNS):
            for j in range(i + COLUMNS, columns, COLUMNS):
                here, there = c0 + i * c_line + j * size, c0 + j * c_line + i * size
                turn_block(c, here, c_line, there, c_line)


@jit_inline
def _gram(x: Any, length: int, k: int, gram: Any) -> None:
    """gram = x^T x."""
    _multiply(x, x.itemsize, x.strides[0], x, length, k, True, gram)


@jit_inline
def _times(a: Any, b: Any, rows: int, k: int, c: Any) -> None:
    """c = a b, of a symmetric b."""
    _multiply(a, a.strides[0], a.itemsize, b, k, rows, False, c)


@jit_inline
def _commuting(a: Any, b: Any, k: int, c: Any) -> None:
    """c = a b, of polynomials of one symmetric matrix."""
    _multiply(a, a.strides[0], a.itemsize, b, k, k, True, c)


@jit_inline
def _polynomial(gram: Any, k: int, abc: Any, out: Any) -> None:
    """out = a I + b G + c G G."""
    a, b, c = abc
    _commuting(gram, gram, k, out)
    for i in range(k):
        gram_K, out_K = gram[i], out[i]
        for j in range(k):
            out_K[j] = c * out_K[j] + b * gram_K[j]
        out_K[i] += a


@jit_inline
def _scale(x: Any, rows: int, k: int, by: Any) -> None:
    for i in range(rows):
        x_K = x[i]
        for j in range(k):
            x_K[j] *= by


@jit_inline
def _by_gram(
    x: Any, length: int, k: int, steps: int, abc: Any, inverse: Any, four: Any, y: Any
) -> Any:
    """y, which is returned: x times all steps' polynomials. four[0] is x^T x; all are written."""
    gram, step, total, other = four
    _scale(gram, k, k, inverse * inverse)
    _polynomial(gram, k, abc, step)
    total[:] = step
    for _ in range(steps - 1):
        _commuting(step, gram, k, other)
        _commuting(other, step, k, gram)
        _polynomial(gram, k, abc, step)
        _commuting(step, total, k, other)
        total, other = other, total
    _scale(total, k, k, inverse)
    _times(x, total, length, k, y)
    return y


@jit_inline
def _by_product(
    x: Any, length: int, k: int, steps: int, abc: Any, inverse: Any, four: Any, y: Any
) -> Any:
    """The same, where x is little longer than wide. Both are written, and the last is returned."""
    gram, step, _, _ = four
    _scale(x, length, k, inverse)
    _scale(gram, k, k, inverse * inverse)
    for turn in range(steps):
        if turn:
            _gram(x, length, k, gram)
        _polynomial(gram, k, abc, step)
        _times(x, step, length, k, y)
        x, y = y, x
    return x


@operator(
    "newton_schulz(Tensor g, float a, float b, float c, int steps, bool by_gram, Tensor(a!) out) "
    "-> ()"
)
@jit_any_order
def newton_schulz(
    g_BMN: Any, a: float, b: float, c: float, steps: int, by_gram: bool, out_BMN: Any
) -> None:
    """Each matrix g nearly orthogonal, by so many steps of the polynomial."""
    _, rows, columns = g_BMN.shape
    length, k, number = max(rows, columns), min(rows, columns), g_BMN.dtype.type
    # A cache line more than whole blocks: columns then fall on different cache sets.
    whole = (k + COLUMNS - 1) // COLUMNS * COLUMNS
    tall = np.zeros((2, length + ROWS, whole + COLUMNS), g_BMN.dtype)
    small = np.zeros((4, whole + ROWS, whole + COLUMNS), g_BMN.dtype)
    x, y, four = tall[0], tall[1], (small[0], small[1], small[2], small[3])
    line, abc = x.strides[0], (number(a), number(b), number(c))
    for i in range(len(g_BMN)):
        g, out = address(g_BMN[i]), address(out_BMN[i])
        if rows >= columns:
            copy_matrix(x, g, g_BMN.strides[1], rows, columns, address(x), line)
        else:
            turn_matrix(x, g, g_BMN.strides[1], rows, columns, address(x), line)
        _gram(x, length, k, four[0])
        squares = number(0)
        for j in range(k):
            squares += four[0][j, j]
        inverse = number(1 / (math.sqrt(squares) + EPS))
        if by_gram:
            made = _by_gram(x, length, k, steps, abc, inverse, four, y)
        else:
            made = _by_product(x, length, k, steps, abc, inverse, four, y)
        if rows >= columns:
            copy_matrix(x, address(made), line, rows, columns, out, out_BMN.strides[1])
        else:
            turn_matrix(x, address(made), line, columns, rows, out, out_BMN.strides[1])
