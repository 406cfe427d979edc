"""What the loops' own instructions are built of.

A number is float32, float64, or an int32 that is a pair of bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba.extending
from llvmlite import ir

I32, I64 = ir.IntType(32), ir.IntType(64)


class BFloatType(ir.Type):  # type: ignore[misc]
    """16 bits, the first of a float32's."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloatType)

    def __hash__(self) -> int:
        return hash(BFloatType)


def intrinsic(emit: Callable[..., Any]) -> Any:
    """numba's decorator, whose types say that its result takes a typing context."""
    return numba.extending.intrinsic(emit)


def size_of(number: Any) -> int:
    """Bytes of a number."""
    return 8 if isinstance(number, ir.DoubleType) else 4


def moved(builder: Any, address: Any, offset: int) -> Any:
    """An address so many bytes on."""
    return builder.add(address, ir.Constant(address.type, offset)) if offset else address


def load(builder: Any, kind: Any, address: Any) -> Any:
    """The vector of a kind at an address, which need not be that of a whole one."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=size_of(kind.element))


def store(builder: Any, vector: Any, address: Any) -> None:
    """Write a vector where `load` would read it."""
    place = builder.inttoptr(address, vector.type.as_pointer())
    builder.store(vector, place, align=size_of(vector.type.element))


def shuffle(builder: Any, x: Any, y: Any, mask: Sequence[int]) -> Any:
    """The chosen numbers of two vectors, those of the second counted on from the first's."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(mask)), list(mask)))


def spread(builder: Any, one: Any, count: int) -> Any:
    """A vector of `count` times one number."""
    undefined = ir.Constant(ir.VectorType(one.type, count), ir.Undefined)
    first = builder.insert_element(undefined, one, ir.Constant(I32, 0))
    return shuffle(builder, first, undefined, [0] * count)


def same(number: Any, value: float, count: int) -> Any:
    """A constant vector."""
    return ir.Constant(ir.VectorType(number, count), [ir.Constant(number, value)] * count)


def function(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    """LLVM's own function of that name."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def suffix(vector: Any) -> str:
    """How the names of LLVM's functions of such vectors end."""
    return f"v{vector.count}f{8 * size_of(vector.element)}"
