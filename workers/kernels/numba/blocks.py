"""Blocks of products whose sums stay in registers.

A block is 6 rows by 16 columns where there are 16 registers of 8 numbers (AVX2): its sums take 12
of them. AVX-512 has 32 of 16 numbers, and there up to four times as many columns go side by side:
a row's numbers are read once for all of them, and so many sums are on their way that none is waited
for. Every entry is the same sum in the same order, however many go side by side.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types

from workers.kernels.numba import llvm
from workers.kernels.numba.library import jit_inline

ROWS, COLUMNS = 6, 16


def _has(feature: str) -> bool:
    """The processor that numba compiles for: this one, if no other was asked for."""
    asked: str | None = vars(numba.config)["CPU_FEATURES"]
    if asked is not None:
        return f"+{feature}" in asked.split(",")
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


MOST = 4 if _has("avx512f") else 1  # times COLUMNS that go side by side
MULTIPLIES_PAIRS = _has("avx512f") and _has("avx512bf16")  # else in float32, for tests
TOGETHER = MOST * COLUMNS  # the most columns of a block

Integer = int | np.int64  # what an address is: numpy's where an array gave it


def _block_product(add: bool) -> Any:
    """block(like, columns, a, step, b, line, n, c): c[r][:] (+)= sum over i < n of a[r][i] b[i][:].

    like: an array of their dtype, int32 for pairs of bfloat16.
    columns: of c, up to `TOGETHER`; nothing beyond them is written.
    a: ROWS addresses of n numbers each, `step` bytes apart.
    b: the address of n lines, `line` bytes apart, that may be read up to whole COLUMNS.
    c: ROWS addresses.
    n: at least 1.
    """

    @llvm.intrinsic
    def block(
        typing: Any,
        like: Any,
        columns: Any,
        a: Any,
        step: Any,
        b: Any,
        line: Any,
        n: Any,
        c: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.get_value_type(signature.args[0].dtype)
            _emit_cases(builder, number, args[1], args[2:], add)
            return context.get_dummy_value()

        return types.void(like, columns, a, step, b, line, n, c), generate

    return block


def _emit_cases(builder: Any, number: Any, columns: Any, args: Any, add: bool) -> None:
    """The widest block, whole, and one for each number of vectors whose last may be a part."""

    def constant(value: int) -> Any:
        return ir.Constant(columns.type, value)

    parts, end = (builder.append_basic_block(name) for name in ("parts", "end"))
    # A block without a mask for the usual case alone: each costs time to compile.
    choice = builder.switch(columns, parts)
    choice.add_case(constant(TOGETHER), whole := builder.append_basic_block("whole"))
    builder.position_at_end(whole)
    _emit_block(builder, number, args, add, MOST, None)
    builder.branch(end)
    builder.position_at_end(parts)
    vectors = builder.udiv(builder.add(columns, constant(COLUMNS - 1)), constant(COLUMNS))
    choice = builder.switch(vectors, end)
    for size in range(1, MOST + 1):
        choice.add_case(constant(size), case := builder.append_basic_block("part"))
        builder.position_at_end(case)
        last = builder.sub(columns, constant((size - 1) * COLUMNS))
        _emit_block(builder, number, args, add, size, last)
        builder.branch(end)
    builder.position_at_end(end)


def _emit_block(builder: Any, number: Any, args: Any, add: bool, vectors: int, part: Any) -> None:
    """A block of `vectors` times COLUMNS; of the last, only `part` numbers are written if given."""
    a_all, step, b, line, n, c_all = args
    a = [builder.extract_value(a_all, r) for r in range(ROWS)]
    summed = ir.FloatType() if isinstance(number, ir.IntType) else number
    vector_bytes = COLUMNS * llvm.size_of(number)
    c = [
        llvm.moved(builder, builder.extract_value(c_all, r), v * vector_bytes)
        for r in range(ROWS)
        for v in range(vectors)
    ]
    _prefetch(builder, c)
    zero = llvm.same(summed, 0.0, COLUMNS)
    entry, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    # What a term changes: how many are left, the offset of a, b, and the sums.
    before = [n, ir.Constant(llvm.I64, 0), b] + [zero] * len(c)
    state = [builder.phi(value.type) for value in before]
    after = [builder.sub(state[0], ir.Constant(llvm.I64, 1))]
    after += _emit_term(builder, number, state[1:], a, step, line)
    for phi, first, next_ in zip(state, before, after, strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(next_, loop)
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", after[0], ir.Constant(llvm.I64, 0)), loop, done)
    builder.position_at_end(done)
    for place, (address, value) in enumerate(zip(c, after[3:], strict=True), 1):
        if part is not None and place % vectors == 0:
            _write_part(builder, value, address, add, part)
        else:
            old = [llvm.load(builder, zero.type, address)] if add else []
            llvm.store(builder, builder.fadd(value, *old) if old else value, address)


def _emit_term(builder: Any, number: Any, state: Any, a: Any, step: Any, line: Any) -> Any:
    """sums += a's numbers times b's line; both move on."""
    offset, b, *sums = state
    vectors = len(sums) // ROWS
    lines = [
        llvm.load(
            builder,
            ir.VectorType(number, COLUMNS),
            llvm.moved(builder, b, v * COLUMNS * llvm.size_of(number)),
        )
        for v in range(vectors)
    ]
    add = _add_products if isinstance(number, ir.FloatType | ir.DoubleType) else _add_pairs
    more = []
    for r, row in enumerate(a):
        pointer = builder.inttoptr(builder.add(row, offset), number.as_pointer())
        many = llvm.spread(builder, builder.load(pointer), COLUMNS)
        mine = sums[r * vectors : (r + 1) * vectors]
        more += [add(builder, many, *pair) for pair in zip(lines, mine, strict=True)]
    return [builder.add(offset, step), builder.add(b, line), *more]


def _add_products(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """a b + total, of numbers."""
    vector = total.type
    fma = llvm.function(builder, f"llvm.fmuladd.{llvm.suffix(vector)}", vector, [vector] * 3)
    return builder.call(fma, [a, b, total])


def _add_pairs(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """a[0] b[0] + a[1] b[1] + total, of pairs of bfloat16."""
    if MULTIPLIES_PAIRS:
        given = ir.VectorType(llvm.BFloatType(), 2 * COLUMNS)
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        dot = llvm.function(builder, name, total.type, [total.type, given, given])
        return builder.call(dot, [total, builder.bitcast(a, given), builder.bitcast(b, given)])
    # A bfloat16 is the first half of a float32.
    half, rest = (llvm.same(a.type.element, bits, COLUMNS) for bits in (16, -(1 << 16)))
    parts = [
        (builder.bitcast(builder.shl(x, half), total.type),
         builder.bitcast(builder.and_(x, rest), total.type))
        for x in (a, b)
    ]  # fmt: skip
    for x, y in zip(*parts, strict=True):
        total = _add_products(builder, x, y, total)
    return total


def _write_part(builder: Any, value: Any, address: Any, add: bool, part: Any) -> None:
    """Write the first `part` numbers of a vector, or add them to what is there."""
    vector, flags = value.type, ir.VectorType(ir.IntType(1), COLUMNS)
    lanes = ir.Constant(ir.VectorType(part.type, COLUMNS), list(range(COLUMNS)))
    mask = builder.icmp_signed("<", lanes, llvm.spread(builder, part, COLUMNS))
    place = builder.inttoptr(address, vector.as_pointer())
    align, kind = (
        ir.Constant(llvm.I32, llvm.size_of(vector.element)),
        f"{llvm.suffix(vector)}.p0",
    )
    if add:
        given = [place.type, llvm.I32, flags, vector]
        load = llvm.function(builder, f"llvm.masked.load.{kind}", vector, given)
        zero = llvm.same(vector.element, 0.0, COLUMNS)
        value = builder.fadd(value, builder.call(load, [place, align, mask, zero]))
    given = [vector, place.type, llvm.I32, flags]
    store = llvm.function(builder, f"llvm.masked.store.{kind}", ir.VoidType(), given)
    builder.call(store, [value, place, align, mask])


def _prefetch(builder: Any, addresses: Any) -> None:
    """Ask for the sums' places early: rows that lie anywhere are far."""
    byte, given = ir.IntType(8).as_pointer(), [llvm.I32] * 3
    prefetch = llvm.function(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, *given])
    write, keep, data = (ir.Constant(llvm.I32, flag) for flag in (1, 3, 1))
    for address in addresses:
        builder.call(prefetch, [builder.inttoptr(address, byte), write, keep, data])


write_block, add_block = _block_product(add=False), _block_product(add=True)


@jit_inline
def address(x: Any) -> Any:
    """Of an array's first number."""
    return np.int64(x.ctypes.data)


@jit_inline
def rows_from(first: Integer, step: int) -> Any:
    """Addresses of `ROWS` places that are `step` apart."""
    return (
        first,
        first + step,
        first + 2 * step,
        first + 3 * step,
        first + 4 * step,
        first + 5 * step,
    )
