"""The rules for single values and for sections, and the words that refuse what breaks them.

Sizes have ends that no proxy comes near. Within them every closed form of this project is exact and
quick; beyond them Python's whole numbers go on, and what loops over one would not end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from search_space.errors import InputError, check_keys, nearest, require, shown

WHOLE = 2**63 - 1  # any whole number: what databases and torch hold
DIM = 2**16  # widths and counts of a backbone and a layer: d_model, heads, layers, sub-layers
TOKENS = 2**24  # a vocabulary, a sequence, a batch
UNITS = 2**32  # hidden units of a layer
REAL = 1e30  # any real number: FLOPs, rates, weights, ratios
CHOICES = 100  # of one parameter of a search space

Error = type[InputError]
T = TypeVar("T")


def is_whole(value: object, least: int = 0, most: int = WHOLE) -> bool:
    """Whether `value` is a whole number in [least, most]; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_real(value: object) -> bool:
    """Whether `value` is a number of at most REAL either way, whole or not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -REAL <= value <= REAL


def whole(
    name: str, value: object, least: int = 1, most: int = WHOLE, error: Error = InputError
) -> None:
    """Refuse what is no whole number in [least, most]."""
    if is_whole(value, least, most):
        return
    if is_whole(value, least, math.inf):  # type: ignore[arg-type]
        raise error(f"{name} must be at most {most:,}: got {shown(value)}")
    raise error(f"{name} must be a whole number of at least {least}: got {shown(value)}")


def real(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    error: Error = InputError,
) -> None:
    """Refuse what is no finite number, or is below `least`, or not above `above`."""
    ok = is_real(value)
    if ok and least is not None:
        ok = value >= least  # type: ignore[operator]
    if ok and above is not None:
        ok = value > above  # type: ignore[operator]
    if ok:
        return
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > REAL:
        raise error(f"{name} must be a finite number of at most {REAL:g}: got {shown(value)}")
    rule = "a finite number" if least is None else f"a finite number of at least {least:g}"
    if above is not None:
        rule = f"above {above:g}"
    raise error(f"{name} must be {rule}: got {shown(value)}")


def flag(name: str, value: object, error: Error = InputError) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise error(f"{name} must be true or false: got {shown(value)}")


def text(name: str, value: object, error: Error = InputError) -> None:
    """Refuse what is no text."""
    if not isinstance(value, str):
        raise error(f"{name} must be text: got {shown(value)}")


def one_of(name: str, value: object, known: Collection[str], error: Error = InputError) -> None:
    """Refuse what is none of a few words, and list them."""
    if not (isinstance(value, str) and value in known):
        raise error(f"{name} must be one of {', '.join(known)}: got {shown(value)}")


def known_word(
    where: str, value: object, known: Collection[str], kind: str, error: Error = InputError
) -> str:
    """The word, when it is one of many known; else refuse it and name the nearest.

    kind: what the words are, such as "method".
    """
    if isinstance(value, str) and value in known:
        return value
    raise error(f"{where}: unknown {kind} {shown(value)}; {nearest(value, known)}")


def section(cls: type[T], where: str, data: Any) -> T:
    """A section's dataclass from its mapping, with errors that name the section.

    cls: a dataclass whose fields are the section's keys.
    where: the section's name in the file.
    data: as it was read.
    Raises InputError for what is no mapping, an unknown key and one that is needed and missing.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where} is a mapping of its fields: got {shown(data)}")
    known = fields(cls)  # type: ignore[arg-type]
    check_keys(where, data, [f.name for f in known])
    for f in known:
        given = f.name in data or f.default is not MISSING or f.default_factory is not MISSING
        require(given, f"{where} needs {f.name}: none given")
    try:
        return cls(**data)
    except InputError as error:
        # The class is made in Python, too, where a field has no section.
        word = re.match(r"\w*", str(error))[0]  # type: ignore[index]
        if word not in {f.name for f in known}:
            raise
        raise type(error)(f"{where}.{error}") from None
