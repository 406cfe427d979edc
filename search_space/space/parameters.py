"""The parameters of a space: which a method asks for, in which order, and when, in words."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from search_space.errors import InputError, nearest, require
from search_space.methods import find, names
from search_space.parameter import MATCHES, Parameter, declared
from search_space.space.data import SearchSpace

SHARED = declared(SearchSpace)
# Of designs of every method.
METHOD, PLACEMENT, CUT = SHARED["method"], SHARED["placement"], SHARED["cut"]


def parameters_of(name: str) -> tuple[Parameter, ...]:
    """What a method asks for after its name, in order, with the method's own conditions.

    Raises InputError for a name that is no parameter, and for a method that has a field's name.
    """
    method: Any = find(name)  # a class can be hashed, which mypy does not see
    return _bound(method)


@functools.cache
def _bound(method: Any) -> tuple[Parameter, ...]:
    require(
        method.method not in {f.name for f in dataclasses.fields(SearchSpace)},
        f"the selection method {method.method!r} has the name of a space's field; rename it",
    )
    known = SHARED | (declared(method.knobs, f"{method.method}.") if method.knobs else {})
    unasked = [name for name in known if name not in SHARED and name not in method.asks]
    require(
        not unasked,
        f"the selection method {method.method!r} has the key {'; '.join(unasked)} and never asks "
        "for it: add it to its `asks`",
    )
    for name in method.asks:
        if name not in known:
            raise InputError(
                f"the selection method {method.method!r} asks for {name!r}, which is no parameter; "
                f"{nearest(name, known)}"
            )
    bound = (
        dataclasses.replace(known[name], when=method.when.get(name, known[name].when))
        for name in method.asks
    )
    return *bound, PLACEMENT, CUT


def every_parameter() -> tuple[Parameter, ...]:
    """Those of every method: the shared ones, then the methods' own."""
    found = dict(SHARED)
    for name in names():
        found |= {p.name: p for p in parameters_of(name) if p.name not in SHARED}
    return tuple(found.values())


def offered(space: SearchSpace) -> list[Parameter]:
    """Those that a design of the space may be asked for."""
    asked = {p.name for name in space.methods for p in parameters_of(name)} | {METHOD.name}
    return [p for p in every_parameter() if p.name in asked and space.match in p.match]


def held(space: SearchSpace) -> frozenset[str]:
    """What a walk over shapes leaves at its first choice."""
    return frozenset(p.name for p in offered(space) if not p.shape)


def when(space: SearchSpace, parameter: Parameter) -> str:
    """In words, when a trial of the space is asked for a parameter."""
    asking = {
        name: bound
        for name in space.methods
        for bound in parameters_of(name)
        if bound.name == parameter.name
    }
    words = {name: bound.when.words for name, bound in asking.items() if bound.when}
    if parameter is METHOD or (len(asking) == len(space.methods) and len(words) < len(asking)):
        text = "; ".join(["always", *(f"with {m} only if {w}" for m, w in words.items())])
    else:
        text = ", ".join(f"{m} if {words[m]}" if m in words else m for m in asking)
    match = parameter.match
    return text if match == MATCHES else f"{text} (match {' or '.join(match)})"
