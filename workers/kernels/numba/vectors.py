"""Some numbers as one value inside a loop, for rows too short for the compiler's own vectors.

It makes them of a plain loop, too, but asks before each whether its arrays overlap, and takes what
is left of a row one by one: of a head's 16 or 32 numbers that is most of the time.

How many they are is the length of a tuple, `lanes`: numba compiles a function once for each.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, overload, register_model

from workers.kernels.numba import library, llvm

MOST = 8  # a register of AVX2
ANY_ORDER = tuple(sorted(library.ANY_ORDER))


class Vector(types.Type):
    """So many numbers of a type."""

    def __init__(self, number: Any, count: int) -> None:
        self.number, self.count = number, count
        super().__init__(name=f"{count} x {number}")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        number = manager.lookup(kind.number).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.count))


def lanes_of(width: int) -> tuple[int, ...]:
    """As many as make a row of so many numbers without a rest."""
    return (0,) * math.gcd(width, MOST)


@llvm.intrinsic
def load(typing: Any, like: Any, lanes: Any, address: Any) -> Any:
    """load(like, lanes, address): the numbers there, of the dtype of the array `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return llvm.load(builder, context.get_value_type(signature.return_type), args[2])

    return Vector(like.dtype, lanes.count)(like, lanes, address), generate


@llvm.intrinsic
def store(typing: Any, x: Any, address: Any) -> Any:
    """store(x, address)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        llvm.store(builder, *args)
        return context.get_dummy_value()

    return types.void(x, address), generate


@llvm.intrinsic
def spread(typing: Any, lanes: Any, x: Any) -> Any:
    """spread(lanes, x): one number in all places."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return llvm.spread(builder, args[1], lanes.count)

    return Vector(x, lanes.count)(lanes, x), generate


@llvm.intrinsic
def total(typing: Any, x: Any) -> Any:
    """total(x): the sum of its numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        name = f"llvm.vector.reduce.fadd.{llvm.suffix(vector)}"
        fold = llvm.function(builder, name, vector.element, [vector.element, vector])
        zero = ir.Constant(vector.element, -0.0)
        return builder.call(fold, [zero, args[0]], fastmath=ANY_ORDER)

    return x.number(x), generate


@llvm.intrinsic
def largest(typing: Any, x: Any) -> Any:
    """largest(x): of its numbers, none of which is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        name = f"llvm.vector.reduce.fmax.{llvm.suffix(vector)}"
        fold = llvm.function(builder, name, vector.element, [vector])
        return builder.call(fold, [args[0]], fastmath=("nnan",))

    return x.number(x), generate


@llvm.intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """larger(a, b): place by place; b's where one is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), generate


def _defines(symbol: Callable[..., Any], name: str) -> None:
    """An operator of two vectors, by LLVM's instruction of that name."""

    @llvm.intrinsic
    def instruction(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args, flags=ANY_ORDER)

        return a(a, b), generate

    @overload(symbol)
    def choose(a: Any, b: Any) -> Any:
        def of_vectors(a: Any, b: Any) -> Any:
            return instruction(a, b)

        return of_vectors if isinstance(a, Vector) and a == b else None


_defines(operator.add, "fadd")
_defines(operator.sub, "fsub")
_defines(operator.mul, "fmul")
