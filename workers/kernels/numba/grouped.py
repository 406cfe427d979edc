"""Grouped matrix products on a CPU: rows are read and written where they lie.

A product goes through blocks of 6 rows by 16 columns whose sums stay in registers; the 16 columns
of a matrix are packed first and stay in the nearest cache. On narrow experts this is faster than a
library's product between a gather and a scatter, which packs both sides each time
(benchmarks/layers.py).

In mixed precision an entry of what is read is an int32, two terms of a sum beside each other
(workers.kernels.numba.paired); what is written is float32.

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
    address,
    write_block,
)
from workers.kernels.numba.copies import (
    copy_few_terms,
    copy_matrix,
    copy_terms,
    terms,
    turn_matrix,
)
from workers.kernels.numba.library import jit, operator

INNER = 256  # entries of a sum at a time: the columns packed for them stay in the nearest cache
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
    skipped = (-address(numbers) // like.itemsize) % LINE
    return numbers[skipped : skipped + rows * columns].reshape((rows, columns))


@jit
def _pack_columns(
    w: Any, transposed: bool, i0: int, n: int, o0: int, columns: int, packed: Any
) -> None:
    """Pack w[i0 : i0 + n, o0 : o0 + columns] of a matrix, or of its transpose; zeros past it."""
    if columns < packed.shape[1]:
        packed[:n, columns:] = 0
    w0, line, size = address(w), w.strides[0], w.itemsize
    there, packed_line = address(packed), packed.strides[0]
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
    "Tensor start, Tensor(a!) y, Tensor y_row, bool add, int n_terms) -> ()"
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
    n_terms: int,
) -> None:
    """y[y_row p] (+)= x[x_row p] @ w[expert of p], or w's transpose. start_N has one entry more,
    the end. A row of y that several pairs write needs `add`. n_terms: of a sum, for who counts."""
    inner, outer, size = x_XI.shape[1], y_YO.shape[1], x_XI.itemsize
    packed = _aligned(INNER, TOGETHER, x_XI)
    spare = np.zeros(outer + COLUMNS, x_XI.dtype)  # for rows that fill up the last block
    b, line = address(packed), packed.strides[0]
    longest = 0
    for run in range(len(expert_N)):
        longest = max(longest, start_N[run + 1] - start_N[run])
    x_P, y_P = np.empty(longest + ROWS, np.int64), np.empty(longest + ROWS, np.int64)
    for run in range(len(expert_N)):
        w, first, end = w_B[expert_N[run]], start_N[run], start_N[run + 1]
        if first == end:
            continue
        x0 = address(x_XI)
        _addresses(x0, x_XI.strides[0], x_row_P, first, end, x0, x_P)
        whole = _addresses(
            address(y_YO),
            y_YO.strides[0],
            y_row_P,
            first,
            end,
            address(spare),
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


@jit
def _pack_units(d_PG: Any, p0: int, n: int, width: int, zeros: Integer, turned: Any) -> None:
    """turned[g // ROWS, i, g % ROWS] = d[p0 + i, g] of n pairs, or of two beside each other.

    zeros: the address of as many as a row has; the second of an odd number's last two is zero.
    """
    together, lines, size = terms(d_PG), turned.shape[1], d_PG.itemsize
    d0, line = address(d_PG) + p0 * d_PG.strides[0], d_PG.strides[0]
    for g in range(0, width, ROWS):
        for i in range((n + together - 1) // together):
            last = together * i + together - 1
            here = d0 + together * i * line + g * (size // together)
            beside = d0 + last * line + g * (size // together) if last < n else zeros
            there = address(turned) + (g * lines + i * ROWS) * size
            if g + ROWS <= width:
                copy_few_terms(d_PG, here, beside, there)
            else:
                copy_terms(d_PG, here, beside, width - g, there)


@jit
def _pack_pairs(
    x_XD: Any, x_row_P: Any, p0: int, n: int, width: int, zeros: Integer, packed: Any
) -> None:
    """packed[i] = x[x_row of p0 + i] of n pairs, or of two beside each other."""
    together, x0 = terms(x_XD), address(x_XD)
    for i in range((n + together - 1) // together):
        last = together * i + together - 1
        here, beside = x0 + x_row_P[p0 + together * i] * x_XD.strides[0], zeros
        if last < n:
            beside = x0 + x_row_P[p0 + last] * x_XD.strides[0]
        there = address(packed) + i * packed.strides[0]
        copy_terms(x_XD, here, beside, width, there)


@operator(
    "grouped_weight_gradient(Tensor d, Tensor x, Tensor x_row, Tensor expert, Tensor start, "
    "Tensor new, Tensor(a!) grad) -> ()"
)
@jit
def grouped_weight_gradient(
    d_PG: Any, x_XD: Any, x_row_P: Any, expert_N: Any, start_N: Any, new_N: Any, grad_BGD: Any
) -> None:
    """grad[expert] (+)= d^T x[x_row] over each run's pairs; where `new_N`, the old is not read."""
    (width, outer), size, together = grad_BGD.shape[1:], d_PG.itemsize, terms(d_PG)
    lines = PAIRS // together
    # Rows one line longer than whole lines: their columns then fall on different cache sets.
    packed = _aligned(lines, (outer + 2 * COLUMNS - 1) // COLUMNS * COLUMNS, x_XD)
    # d goes in blocks of ROWS units too: side by side, its numbers take the fewest cache lines.
    turned = np.zeros(((width + ROWS - 1) // ROWS, lines, ROWS), x_XD.dtype)
    unit_G = np.arange(width)
    place_G = unit_G // ROWS * (lines * ROWS) + unit_G % ROWS
    d_G, grad_G = np.empty(width + ROWS, np.int64), np.empty(width + ROWS, np.int64)
    whole = _addresses(address(turned), size, place_G, 0, width, address(turned), d_G)
    step, line = ROWS * size, packed.strides[0]
    packed0 = address(packed)
    spare = np.zeros(outer + COLUMNS, x_XD.dtype)
    nothing = np.zeros(max(ROWS, outer), x_XD.dtype)
    zeros = address(nothing)
    for run in range(len(expert_N)):
        grad_GD = grad_BGD[expert_N[run]]
        _addresses(
            address(grad_GD),
            grad_GD.strides[0],
            unit_G,
            0,
            width,
            address(spare),
            grad_G,
        )
        first, end = start_N[run], start_N[run + 1]
        for p0 in range(first, end, PAIRS):
            n, adds = min(PAIRS, end - p0), not new_N[run] or p0 > first
            _pack_units(d_PG, p0, n, width, zeros, turned)
            _pack_pairs(x_XD, x_row_P, p0, n, outer, zeros, packed)
            n_lines = (n + together - 1) // together
            o0 = 0
            while o0 < outer:
                columns = min(TOGETHER, outer - o0)
                b, there = packed0 + o0 * size, o0 * size
                _panel(x_XD, columns, d_G, 0, step, b, line, n_lines, grad_G, there, whole, adds)
                o0 += columns
