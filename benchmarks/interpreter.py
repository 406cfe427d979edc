"""Triton's interpreter, with less to do at each call.

Where arrays are small it spends most of its time on what changes no result:

- At each launch and at each call of one kernel function by another it looks through all members of
  `triton.language` for those that it stands in for. They do not change, and what a launch has
  replaced stays so until it ends.
- It does each sum and product of 32-bit integers again in 64 bits, and compares; with its option
  `debug` off it then asserts nothing.
- Each value gets its shape as new constants, their types and a name, and each look at a dtype fills
  a table of all dtypes. There are few shapes and few dtypes.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable
from functools import cache, cached_property
from typing import Any


def lighten() -> None:
    """Have each of these done once or not at all. In a process with TRITON_INTERPRET=1 only."""
    _find_members_once()
    _drop_unheard_checks()
    _make_shapes_once()
    _find_dtypes_once()


def _find_members_once() -> None:
    import triton.language as tl
    from triton.runtime import interpreter

    patch_all, original = interpreter._patch_lang, tl.load

    @cache
    def builtins_of(package: Any) -> tuple[tuple[str, Any], ...]:
        members = inspect.getmembers(package)
        return tuple((name, each) for name, each in members if tl.core.is_builtin(each))

    def patch_builtin(package: Any, builder: Any, scope: Any) -> None:
        for name, member in builtins_of(package):
            interpreter._patch_attr(package, name, member, builder, scope)

    @cache
    def languages_of(function: Any) -> tuple[Any, ...]:
        """Of the language's two modules those that a function's own module knows."""
        return tuple(each for each in (tl, tl.core) if each in function.__globals__.values())

    def patch_lang(function: Any) -> Any:
        """Nothing inside a launch which has done it."""
        if any(each.load is original for each in languages_of(function)):
            return patch_all(function)
        return interpreter._LangPatchScope()

    interpreter._patch_builtin, interpreter._patch_lang = patch_builtin, patch_lang


def _drop_unheard_checks() -> None:
    from triton.runtime.interpreter import interpreter_builder as builder

    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


def _make_shapes_once() -> None:
    from triton.language import core
    from triton.language.semantic import TritonSemantic

    check_block = core.block_type.__init__

    @cache
    def checked(sizes: tuple[int, ...]) -> tuple[Any, int]:
        """The shape of a type, whose sizes are integers, and its number of elements."""
        first = object.__new__(core.block_type)
        check_block(first, core.int1, list(sizes))
        return first.shape, first.numel

    @cache
    def constants_of(sizes: tuple[int, ...]) -> tuple[Any, Any]:
        """The same of a value, whose sizes are constants."""
        shape = core.tuple([core.constexpr(size) for size in sizes])
        return shape, core.constexpr(math.prod(sizes))

    def make_block(block: Any, element_ty: Any, shape: Iterable[Any]) -> None:
        sizes = tuple(each.value if isinstance(each, core.constexpr) else each for each in shape)
        block.element_ty = element_ty
        block.shape, block.numel = checked(sizes)

    def make_tensor(tensor: Any, handle: Any, type: Any) -> None:
        tensor.handle, tensor.type, tensor.dtype = handle, type, type.scalar
        sizes = tuple(type.shape.values) if type.is_block() else ()
        tensor.shape, tensor.numel = constants_of(sizes)

    broadcast = TritonSemantic.broadcast_impl_value

    def broadcast_others(semantic: Any, one: Any, other: Any) -> tuple[Any, Any]:
        types = one.type, other.type
        if types[0].is_block() and types[1].is_block() and types[0].shape is types[1].shape:
            return one, other
        return broadcast(semantic, one, other)

    name = cached_property(lambda block: f"<{block.shape}, {block.element_ty}>")
    name.__set_name__(core.block_type, "name")
    core.block_type.name = name
    core.block_type.__init__, core.tensor.__init__ = make_block, make_tensor
    TritonSemantic.broadcast_impl_value = broadcast_others


def _find_dtypes_once() -> None:
    from triton.runtime import interpreter

    find, found = interpreter._get_np_dtype, dict[str, Any]()

    def numpy_dtype(dtype: Any) -> Any:
        element = dtype.scalar
        if element.name not in found:
            found[element.name] = find(element)
        return found[element.name]

    interpreter._get_np_dtype = numpy_dtype
