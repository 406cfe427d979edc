"""What a selection method must have, said one by one where a plug-in lacks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from search_space.design import Method
from search_space.errors import InputError, shown
from search_space.parameter import Condition, Knobs


def check_method(candidate: object, owner: str) -> type[Method]:
    """`candidate`, when it has every part of a method; else InputError says which is missing.

    owner: who brings it, in words.
    """
    if not (isinstance(candidate, type) and issubclass(candidate, Method)):
        raise InputError(
            f"{owner} is no selection method: got {shown(candidate)}; give a class derived from "
            "search_space.design.Method"
        )
    for part, (fits, what) in _PARTS.items():
        if not fits(candidate):
            raise InputError(
                f"the selection method of {owner} lacks `{part}`, {what}: got "
                f"{shown(getattr(candidate, part, None))}; docs/extending.md shows one"
            )
    return candidate


def _fits(cls: type[Method], part: str, pattern: str) -> bool:
    text = getattr(cls, part, None)
    return isinstance(text, str) and re.fullmatch(pattern, text) is not None


def _has_asks(cls: type[Method]) -> bool:
    asks = getattr(cls, "asks", None)
    return isinstance(asks, tuple) and bool(asks) and all(isinstance(name, str) for name in asks)


def _has_knobs(cls: type[Method]) -> bool:
    knobs = cls.knobs
    if knobs is None:
        return True
    is_knobs = isinstance(knobs, type) and issubclass(knobs, Knobs) and _is_frozen(knobs)
    return is_knobs and getattr(knobs, "method", None) == cls.method


def _has_when(cls: type[Method]) -> bool:
    when = cls.when
    if not isinstance(when, Mapping) or not set(when) <= set(cls.asks):
        return False
    return all(isinstance(condition, Condition) for condition in when.values())


def _has_plan(cls: type[Method]) -> bool:
    plan = getattr(cls.plan, "__func__", None)  # a class method's own function
    return plan is not None and plan is not Method.plan.__func__  # type: ignore[attr-defined]


def _is_frozen(cls: type) -> bool:
    """Whether the class itself is a frozen dataclass."""
    params = vars(cls).get("__dataclass_params__")
    return params is not None and bool(params.frozen)


_PARTS: dict[str, tuple[Callable[[type[Method]], bool], str]] = {
    "method": (
        lambda cls: _fits(cls, "method", r"[a-z][a-z0-9_]{0,63}"),
        "its name, of at most 64 lower-case letters, digits and _",
    ),
    "@dataclass": (
        _is_frozen,
        "with frozen=True and kw_only=True on its class",
    ),
    "layer": (
        lambda cls: _fits(cls, "layer", r"\w+(\.\w+)*:\w+"),
        "the place of its layer, `module:Class`",
    ),
    "asks": (_has_asks, "the names of the parameters that a trial is asked for, a tuple of text"),
    "knobs": (_has_knobs, "None, or a frozen dataclass of Knobs with the same `method`"),
    "when": (_has_when, "a mapping from names in its `asks` to a Condition each"),
    "plan": (_has_plan, "a class method, the way from what a trial chose to a Plan"),
    "cost": (
        lambda cls: callable(cls.cost) and cls.cost is not Method.cost,
        "what its selection and experts cost",
    ),
}
