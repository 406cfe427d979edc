"""Matrices copied and turned between addresses, many numbers at a time.

A plain loop over an array's entries takes them one by one, for each index might be negative and its
arrays might overlap: copying what a product reads then took as long as the product.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import overload

from workers.kernels.numba import llvm
from workers.kernels.numba.blocks import COLUMNS, ROWS, Integer
from workers.kernels.numba.library import jit


def _copy(*parts: int) -> Any:
    """copy(like, a, b): the sum of `parts` numbers from one address to another."""

    @llvm.intrinsic
    def copy(typing: Any, like: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number, done = context.get_value_type(signature.args[0].dtype), 0
            for part in parts:
                here, there = (llvm.moved(builder, start, done) for start in args[1:])
                vector = llvm.load(builder, ir.VectorType(number, part), here)
                llvm.store(builder, vector, there)
                done += part * llvm.size_of(number)
            return context.get_dummy_value()

        return types.void(like, a, b), generate

    return copy


copy_columns, copy_rows, copy_one = _copy(COLUMNS), _copy(4, ROWS - 4), _copy(1)


def _interleave(*parts: int) -> Any:
    """interleave(a, b, c): the sum of `parts` bfloat16 from each of two addresses, as pairs to a
    third: a[0], b[0], a[1], b[1], ..."""

    @llvm.intrinsic
    def interleave(typing: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            short, done = ir.IntType(16), 0
            for part in parts:
                kind = ir.VectorType(short, part)
                a, b = (
                    llvm.load(builder, kind, llvm.moved(builder, x, done * HALF)) for x in args[:2]
                )
                order = [place + side * part for place in range(part) for side in (0, 1)]
                pairs = llvm.shuffle(builder, a, b, order)
                llvm.store(builder, pairs, llvm.moved(builder, args[2], 2 * done * HALF))
                done += part
            return context.get_dummy_value()

        return types.void(a, b, c), generate

    return interleave


HALF = 2  # bytes of a bfloat16
pair_columns, pair_rows, pair_one = _interleave(COLUMNS), _interleave(4, ROWS - 4), _interleave(1)


@llvm.intrinsic
def turn_block(typing: Any, like: Any, a: Any, a_line: Any, b: Any, b_line: Any) -> Any:
    """turn_block(like, a, a_line, b, b_line): b[i][j] = a[j][i] for i, j < COLUMNS; addresses, and
    bytes between lines."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.get_value_type(signature.args[0].dtype)
        _emit_turn(builder, ir.VectorType(number, COLUMNS), *args[1:])
        return context.get_dummy_value()

    return types.void(like, a, a_line, b, b_line), generate


def _emit_turn(builder: Any, vector: Any, a: Any, a_line: Any, b: Any, b_line: Any) -> None:
    lines = []
    for _ in range(COLUMNS):
        lines.append(llvm.load(builder, vector, a))
        a = builder.add(a, a_line)
    for stage in STAGES:
        lines = [llvm.shuffle(builder, lines[x], lines[y], mask) for x, y, mask in stage]
    for line in lines:
        llvm.store(builder, line, b)
        b = builder.add(b, b_line)


def _stages() -> list[list[tuple[int, int, list[int]]]]:
    """How 16 lines of 16 are turned: in four stages, each line of a stage of two of the one before,
    by shuffles of one instruction each: first within quarters of a line, then of whole quarters."""

    def within(*mine: int) -> list[int]:
        # Of each quarter; 4 and more are of the second line.
        return [4 * q + m % 4 + COLUMNS * (m // 4) for q in range(4) for m in mine]

    def whole(*mine: int) -> list[int]:
        return [4 * (m % 4) + COLUMNS * (m // 4) + e for m in mine for e in range(4)]

    four, sides = range(4), range(2)
    low, high = within(0, 4, 1, 5), within(2, 6, 3, 7)
    first = [(2 * (r // 2), 2 * (r // 2) + 1, (low, high)[r % 2]) for r in range(COLUMNS)]
    front, back = within(0, 1, 4, 5), within(2, 3, 6, 7)
    second = [
        (4 * g + m // 2, 4 * g + m // 2 + 2, (front, back)[m % 2]) for g in four for m in four
    ]
    # Line 4 g + m has now, in quarter q, column 4 q + m of the lines 4 g to 4 g + 3.
    even, odd = whole(0, 2, 4, 6), whole(1, 3, 5, 7)
    third = [
        (8 * half + m, 8 * half + 4 + m, (even, odd)[p])
        for m in four
        for half in sides
        for p in sides
    ]
    # Line 4 m + 2 half + p: of the lines of one half, columns 4 p + m and 4 (p + 2) + m.
    fourth = [(4 * m + q % 2, 4 * m + 2 + q % 2, (even, odd)[q // 2]) for q in four for m in four]
    return [first, second, third, fourth]


STAGES = _stages()


@jit
def copy_matrix(
    like: Any, a: Integer, a_line: int, rows: int, columns: int, b: Integer, b_line: int
) -> None:
    """b[i][j] = a[i][j]; addresses, and bytes between lines.

    like: an array of their dtype.
    """
    size, whole = like.itemsize, columns // COLUMNS * COLUMNS
    for i in range(rows):
        here, there = a + i * a_line, b + i * b_line
        for j in range(0, whole, COLUMNS):
            copy_columns(like, here + j * size, there + j * size)
        for j in range(whole, columns):
            copy_one(like, here + j * size, there + j * size)


@jit
def turn_matrix(
    like: Any, a: Integer, a_line: int, rows: int, columns: int, b: Integer, b_line: int
) -> None:
    """b[j][i] = a[i][j] for i < rows and j < columns; addresses, and bytes between lines.

    like: an array of their dtype.
    """
    size = like.itemsize
    whole_rows, whole = rows // COLUMNS * COLUMNS, columns // COLUMNS * COLUMNS
    for i in range(0, whole_rows, COLUMNS):
        for j in range(0, whole, COLUMNS):
            here, there = a + i * a_line + j * size, b + j * b_line + i * size
            turn_block(like, here, a_line, there, b_line)
    for i in range(rows):
        for j in range(whole if i < whole_rows else 0, columns):
            copy_one(like, a + i * a_line + j * size, b + j * b_line + i * size)


@jit
def pair_row(a: Integer, b: Integer, columns: int, c: Integer) -> None:
    """Pairs of two rows of bfloat16, number by number; addresses."""
    whole = columns // COLUMNS * COLUMNS
    for j in range(0, whole, COLUMNS):
        pair_columns(a + j * HALF, b + j * HALF, c + 2 * j * HALF)
    for j in range(whole, columns):
        pair_one(a + j * HALF, b + j * HALF, c + 2 * j * HALF)


# By a loop's types, which numba asks below: Python calls none of these three.


def terms(like: Any) -> int:
    """Of a sum, that lie beside each other in an entry of such an array."""
    raise NotImplementedError


def copy_terms(like: Any, a: Any, b: Any, columns: Any, c: Any) -> None:
    """One row to c, or pairs of two rows; addresses.

    like: an array of the rows' dtype: int32 for pairs.
    b: the second row, which is read where `terms(like)` is 2.
    """
    raise NotImplementedError


def copy_few_terms(like: Any, a: Any, b: Any, c: Any) -> None:
    """`copy_terms` of ROWS columns."""
    raise NotImplementedError


def _is_paired(like: Any) -> bool:
    return isinstance(like.dtype, types.Integer)


@overload(terms)
def _terms_of(like: Any) -> Any:
    def one(like: Any) -> int:
        return 1

    def two(like: Any) -> int:
        return 2

    return two if _is_paired(like) else one


@overload(copy_terms)
def _copy_terms_of(like: Any, a: Any, b: Any, columns: Any, c: Any) -> Any:
    def one(like: Any, a: Any, b: Any, columns: Any, c: Any) -> None:
        copy_matrix(like, a, 0, 1, columns, c, 0)

    def two(like: Any, a: Any, b: Any, columns: Any, c: Any) -> None:
        pair_row(a, b, columns, c)

    return two if _is_paired(like) else one


@overload(copy_few_terms)
def _copy_few_terms_of(like: Any, a: Any, b: Any, c: Any) -> Any:
    def one(like: Any, a: Any, b: Any, c: Any) -> None:
        copy_rows(like, a, c)

    def two(like: Any, a: Any, b: Any, c: Any) -> None:
        pair_rows(a, b, c)

    return two if _is_paired(like) else one
