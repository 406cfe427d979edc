"""Grouped matrix products on a CPU: rows are read and written where they lie.

A product goes through blocks of 6 rows by 16 columns whose sums stay in registers; the 16 columns
of a matrix are packed first and stay in the nearest cache. On narrow experts this is faster than a
library's product between a gather and a scatter, which packs both sides each time
(benchmarks/layers.py).

P pairs sorted by expert, N runs of pairs of one expert, I and O inner and outer widths, B experts,
G and D the widths of a gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.kernels.numba.blocks import (
    COLUMNS,
    ROWS,
    TOGETHER,
    Integer,
    add_block,
    write_block,
)
from workers.kernels.numba.copies import copy_matrix, copy_rows, turn_matrix
from workers.kernels.numba.library import jit, operator

INNER = 256  # terms of a sum at a time: the columns packed for them stay in the nearest cache
PAIRS = 128  # of a gradient at a time: their rows are copied whole, and few pages hold them
LINE = 16  # numbers: a cache line, of 4 bytes each


@jit
def _addresses(
    base: Integer, stride: int, row_P: Any, first: int, end: int, fill: Integer, out: Any
) -> int:
    """The addresses of some pairs' rows, filled up to whole blocks; returns how many."""
    n = end - first
    for p in range(n):
        out[p] = base + stride * row_P[first + p]
    whole = (n + ROWS - 1) // ROWS * ROWS
    out[n:whole] = fill
    return whole


@jit
def _aligned(rows: int, columns: int, like: Any) -> Any:
    """Zeros (rows, columns) that begin where a cache line does."""
    numbers = np.zeros(rows * columns + LINE, like.dtype)
    skipped = (-np.int64(numbers.ctypes.data) // like.itemsize) % LINE
    return numbers[skipped : skipped + rows * columns].reshape((rows, columns))


@jit
def _pack_columns(
    w: Any, transposed: bool, i0: int, n: int, o0: int, columns: int, packed: Any
) -> None:
    """Pack w[i0 : i0 + n, o0 : o0 + columns] of a matrix, or of its transpose; zeros past it."""
    if columns < packed.shape[1]:
        packed[:n, columns:] = 0
    w0, line, size = np.int64(w.ctypes.data), w.strides[0], w.itemsize
    there, packed_line = np.int64(packed.ctypes.data), packed.strides[0]
    if transposed:
        turn_matrix(w, w0 + o0 * line + i0 * size, line, columns, n, there, packed_line)
    else:
        copy_matrix(w, w0 + i0 * line + o0 * size, line, n, columns, there, packed_line)


@jit
def _panel(
    like: Any,
    columns: int,
    a_P: Any,
    a_offset: int,
    step: int,
    b: Integer,
    line: int,
    n: int,
    c_P: Any,
    c_offset: int,
    whole: int,
    add: bool,
) -> None:
    """Blocks of `whole` rows, at the addresses in a_P and c_P plus offsets, one below another."""
    for p in range(0, whole, ROWS):
        a = (
            a_P[p] + a_offset,
            a_P[p + 1] + a_offset,
            a_P[p + 2] + a_offset,
            a_P[p + 3] + a_offset,
            a_P[p + 4] + a_offset,
            a_P[p + 5] + a_offset,
        )
        c = (
            c_P[p] + c_offset,
            c_P[p + 1] + c_offset,
            c_P[p + 2] + c_offset,
            c_P[p + 3] + c_offset,
            c_P[p + 4] + c_offset,
            c_P[p + 5] + c_offset,
        )
        if add:
            add_block(like, columns, a, step, b, line, n, c)
        else:
            write_block(like, columns, a, step, b, line, n, c)


@operator(
    "grouped_product(Tensor x, Tensor x_row, Tensor w, bool transposed, Tensor expert, "
    "Tensor start, Tensor(a!) y, Tensor y_row, bool add) -> ()"
)
@jit
def grouped_product(
    x_XI: Any,
    x_row_P: Any,
    w_B: Any,
    transposed: bool,
    expert_N: Any,
    start_N: Any,
    y_YO: Any,
    y_row_P: Any,
    add: bool,
) -> None:
    """y[y_row p] (+)= x[x_row p] @ w[expert of p], or w's transpose. start_N has one entry more,
    the end. A row of y that several pairs write needs `add`."""
    inner, outer, size = x_XI.shape[1], y_YO.shape[1], x_XI.itemsize
    packed = _aligned(INNER, TOGETHER, x_XI)
    spare = np.zeros(outer + COLUMNS, x_XI.dtype)  # for rows that fill up the last block
    b, line = np.int64(packed.ctypes.data), packed.strides[0]
    longest = 0
    for run in range(len(expert_N)):
        longest = max(longest, start_N[run + 1] - start_N[run])
    x_P, y_P = np.empty(longest + ROWS, np.int64), np.empty(longest + ROWS, np.int64)
    for run in range(len(expert_N)):
        w, first, end = w_B[expert_N[run]], start_N[run], start_N[run + 1]
        if first == end:
            continue
        x0 = np.int64(x_XI.ctypes.data)
        _addresses(x0, x_XI.strides[0], x_row_P, first, end, x0, x_P)
        whole = _addresses(
            np.int64(y_YO.ctypes.data),
            y_YO.strides[0],
            y_row_P,
            first,
            end,
            np.int64(spare.ctypes.data),
            y_P,
        )
        for i0 in range(0, inner, INNER):
            n, adds = min(INNER, inner - i0), add or i0 > 0
            o0 = 0
            while o0 < outer:
                columns = min(TOGETHER, outer - o0)
                _pack_columns(w, transposed, i0, n, o0, columns, packed)
                here, there = i0 * size, o0 * size
                _panel(x_XI, columns, x_P, here, size, b, line, n, y_P, there, whole, adds)
                o0 += columns


@operator(
    "grouped_weight_gradient(Tensor d, Tensor x, Tensor x_row, Tensor expert, Tensor start, "
    "Tensor new, Tensor(a!) grad) -> ()"
)
@jit
def grouped_weight_gradient(
    d_PG: Any, x_XD: Any, x_row_P: Any, expert_N: Any, start_N: Any, new_N: Any, grad_BGD: Any
) -> None:
    """grad[expert] (+)= d^T x[x_row] over each run's pairs; where `new_N`, the old is not read."""
    width, outer, size = d_PG.shape[1], x_XD.shape[1], x_XD.itemsize
    # Rows one line longer than whole lines: their columns then fall on different cache sets.
    packed = _aligned(PAIRS, (outer + 2 * COLUMNS - 1) // COLUMNS * COLUMNS, x_XD)
    # d goes in blocks of ROWS units too: side by side, its numbers take the fewest cache lines.
    turned = np.zeros(((width + ROWS - 1) // ROWS, PAIRS, ROWS), x_XD.dtype)
    unit_G = np.arange(width)
    place_G = unit_G // ROWS * (PAIRS * ROWS) + unit_G % ROWS
    d_G, grad_G = np.empty(width + ROWS, np.int64), np.empty(width + ROWS, np.int64)
    whole = _addresses(
        np.int64(turned.ctypes.data), size, place_G, 0, width, np.int64(turned.ctypes.data), d_G
    )
    step, line = ROWS * size, packed.strides[0]
    d0, d_line, x0 = np.int64(d_PG.ctypes.data), d_PG.strides[0], np.int64(x_XD.ctypes.data)
    t0, packed0 = np.int64(turned.ctypes.data), np.int64(packed.ctypes.data)
    spare = np.zeros(outer + COLUMNS, x_XD.dtype)
    for run in range(len(expert_N)):
        grad_GD = grad_BGD[expert_N[run]]
        _addresses(
            np.int64(grad_GD.ctypes.data),
            grad_GD.strides[0],
            unit_G,
            0,
            width,
            np.int64(spare.ctypes.data),
            grad_G,
        )
        first, end = start_N[run], start_N[run + 1]
        for p0 in range(first, end, PAIRS):
            n, adds = min(PAIRS, end - p0), not new_N[run] or p0 > first
            for g in range(0, width, ROWS):
                if g + ROWS <= width:
                    here, there = d0 + p0 * d_line + g * size, t0 + g * PAIRS * size
                    for i in range(n):
                        copy_rows(d_PG, here + i * d_line, there + i * ROWS * size)
                else:
                    for i in range(n):
                        for r in range(width - g):
                            turned[g // ROWS, i, r] = d_PG[p0 + i, g + r]
            for i in range(n):
                here = x0 + x_row_P[p0 + i] * x_XD.strides[0]
                copy_matrix(x_XD, here, 0, 1, outer, packed0 + i * line, 0)
            o0 = 0
            while o0 < outer:
                columns = min(TOGETHER, outer - o0)
                b, there = packed0 + o0 * size, o0 * size
                _panel(x_XD, columns, d_G, 0, step, b, line, n, grad_G, there, whole, adds)
                o0 += columns
