"""Triton's interpreter, with less to do at each call.

At each launch and at each call of one kernel function by another it looks through all members of
`triton.language` for those that it stands in for: a third of all time where arrays are small. They
do not change, and what a launch has replaced stays so until it ends.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any


def lighten() -> None:
    """Have the members looked up once. In a process with TRITON_INTERPRET=1 only."""
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
