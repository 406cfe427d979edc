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
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from workers.kernels.numba.library import jit, operator

ROWS, COLUMNS = 6, 16  # of a block: its sums take 12 of AVX2's 16 registers
INNER = 256  # terms of a sum at a time: the columns packed for them stay in the nearest cache
PAIRS = 128  # of a gradient at a time: their rows are copied whole, and few pages hold them

Integer = int | np.int64  # what an address is: numpy's where an array gave it


def _block_product(add: bool) -> Any:
    """block(like, a, step, b, line, n, c): c[r][:] (+)= sum over i < n of a[r][i] * b[i][:].

    a: ROWS addresses of n numbers each, `step` bytes apart.
    b: the address of n lines of COLUMNS numbers, `line` bytes apart.
    c: ROWS addresses of COLUMNS numbers.
    like: an array of their dtype.
    n: at least 1.
    """

    @intrinsic
    def block(typing: Any, like: Any, a: Any, step: Any, b: Any, line: Any, n: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.get_value_type(signature.args[0].dtype)
            _emit_block(builder, number, args[1:], add)
            return context.get_dummy_value()

        return types.void(like, a, step, b, line, n, c), generate

    return block


def _emit_block(builder: Any, number: Any, args: Any, add: bool) -> None:
    a_all, step, b, line, n, c_all = args
    size = 4 if isinstance(number, ir.FloatType) else 8
    i64, vector = ir.IntType(64), ir.VectorType(number, COLUMNS)
    a = [builder.extract_value(a_all, r) for r in range(ROWS)]
    c = [builder.extract_value(c_all, r) for r in range(ROWS)]
    _prefetch(builder, c)
    zero = ir.Constant(vector, [ir.Constant(number, 0.0)] * COLUMNS)
    entry, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    # What a term changes: how many are left, the offset of a, b, and the sums.
    before = [n, ir.Constant(i64, 0), b] + [zero] * ROWS
    state = [builder.phi(value.type) for value in before]
    after = [builder.sub(state[0], ir.Constant(i64, 1))]
    after += _emit_term(builder, state[1:], a, step, line, size)
    for phi, first, next_ in zip(state, before, after, strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(next_, loop)
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", after[0], ir.Constant(i64, 0)), loop, done)
    builder.position_at_end(done)
    for place, value in zip(c, after[3:], strict=True):
        place = builder.inttoptr(place, vector.as_pointer())
        if add:
            value = builder.fadd(value, builder.load(place, align=size))
        builder.store(value, place, align=size)


def _emit_term(builder: Any, state: Any, a: Any, step: Any, line: Any, size: int) -> Any:
    """sums += a's numbers times b's line; both move on."""
    offset, b, *sums = state
    vector = sums[0].type
    undefined, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), [0] * COLUMNS)
    fma = _function(builder, f"llvm.fmuladd.v{COLUMNS}f{8 * size}", vector, [vector] * 3)
    columns = builder.load(builder.inttoptr(b, vector.as_pointer()), align=size)
    more = []
    for row, total in zip(a, sums, strict=True):
        pointer = builder.inttoptr(builder.add(row, offset), vector.element.as_pointer())
        one = builder.insert_element(undefined, builder.load(pointer), first)
        many = builder.shuffle_vector(one, undefined, everywhere)
        more.append(builder.call(fma, [many, columns, total]))
    return [builder.add(offset, step), builder.add(b, line), *more]


def _prefetch(builder: Any, addresses: Any) -> None:
    """Ask for the sums' places early: rows that lie anywhere are far."""
    i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    prefetch = _function(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, i32, i32, i32])
    write, keep, data = (ir.Constant(i32, flag) for flag in (1, 3, 1))
    for address in addresses:
        builder.call(prefetch, [builder.inttoptr(address, byte), write, keep, data])


def _function(builder: Any, name: str, result: Any, arguments: Any) -> Any:
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


write_block, add_block = _block_product(add=False), _block_product(add=True)


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
def _pack_columns(w: Any, transposed: bool, i0: int, n: int, o0: int, packed: Any) -> None:
    """Pack w[i0 : i0 + n, o0 : o0 + COLUMNS] of a matrix, or of its transpose; zeros past it."""
    width = min(COLUMNS, (w.shape[0] if transposed else w.shape[1]) - o0)
    if width < COLUMNS:
        packed[:n] = 0
    if transposed:
        for j in range(width):
            for i in range(n):
                packed[i, j] = w[o0 + j, i0 + i]
    elif width == COLUMNS:
        for i in range(n):
            for j in range(COLUMNS):
                packed[i, j] = w[i0 + i, o0 + j]
    else:
        for i in range(n):
            for j in range(width):
                packed[i, j] = w[i0 + i, o0 + j]


@jit
def _panel(
    like: Any,
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
            add_block(like, a, step, b, line, n, c)
        else:
            write_block(like, a, step, b, line, n, c)


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
    packed = np.empty((INNER, COLUMNS), x_XI.dtype)
    spare = np.zeros(outer + COLUMNS, x_XI.dtype)  # for rows that fill up the last block
    longest = 0
    for run in range(len(expert_N)):
        longest = max(longest, start_N[run + 1] - start_N[run])
    x_P, y_P = np.empty(longest + ROWS, np.int64), np.empty(longest + ROWS, np.int64)
    # Columns past the last whole block of them are made in lines of their own.
    edge = np.empty((longest + ROWS, COLUMNS) if outer % COLUMNS else (0, COLUMNS), x_XI.dtype)
    edge_P = np.int64(edge.ctypes.data) + edge.strides[0] * np.arange(len(edge))
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
            for o0 in range(0, outer, COLUMNS):
                _pack_columns(w, transposed, i0, n, o0, packed)
                b, line = np.int64(packed.ctypes.data), packed.strides[0]
                if o0 + COLUMNS <= outer:
                    _panel(x_XI, x_P, i0 * size, size, b, line, n, y_P, o0 * size, whole, adds)
                else:
                    _panel(x_XI, x_P, i0 * size, size, b, line, n, edge_P, 0, whole, False)
                    for p in range(end - first):
                        y_O = y_YO[y_row_P[first + p]]
                        for j in range(outer - o0):
                            y_O[o0 + j] = edge[p, j] + (y_O[o0 + j] if adds else 0)


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
    packed = np.zeros((PAIRS, (outer + 2 * COLUMNS - 1) // COLUMNS * COLUMNS), x_XD.dtype)
    # d goes in blocks of ROWS units too: side by side, its numbers take the fewest cache lines.
    turned = np.zeros(((width + ROWS - 1) // ROWS, PAIRS, ROWS), x_XD.dtype)
    unit_G = np.arange(width)
    place_G = unit_G // ROWS * (PAIRS * ROWS) + unit_G % ROWS
    d_G, grad_G = np.empty(width + ROWS, np.int64), np.empty(width + ROWS, np.int64)
    whole = _addresses(
        np.int64(turned.ctypes.data), size, place_G, 0, width, np.int64(turned.ctypes.data), d_G
    )
    spare = np.zeros(outer + COLUMNS, x_XD.dtype)
    edge = np.empty((whole, COLUMNS) if outer % COLUMNS else (0, COLUMNS), x_XD.dtype)
    edge_G = np.int64(edge.ctypes.data) + edge.strides[0] * np.arange(len(edge))
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
                for i in range(n):
                    for r in range(min(ROWS, width - g)):
                        turned[g // ROWS, i, r] = d_PG[p0 + i, g + r]
            for i in range(n):
                x_D = x_XD[x_row_P[p0 + i]]
                for j in range(outer):
                    packed[i, j] = x_D[j]
            step, line = ROWS * size, packed.strides[0]
            for o0 in range(0, outer, COLUMNS):
                b = np.int64(packed.ctypes.data) + o0 * size
                if o0 + COLUMNS <= outer:
                    _panel(x_XD, d_G, 0, step, b, line, n, grad_G, o0 * size, whole, adds)
                else:
                    _panel(x_XD, d_G, 0, step, b, line, n, edge_G, 0, whole, False)
                    for g in range(width):
                        for j in range(outer - o0):
                            old = grad_GD[g, o0 + j] if adds else 0
                            grad_GD[g, o0 + j] = edge[g, j] + old
