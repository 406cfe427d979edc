"""The registry of selection methods. Each module of this package is the home of one.

Methods of this project are found by walking the package, plug-ins by the entry points of the group
`ffn_nas.methods`, at the first question and not at import. `register` adds one to this process.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from search_space.checks import known_word
from search_space.design import Method
from search_space.errors import BrokenPlugIn, InputError, UnknownMethod, require
from search_space.finding import homes, plug_ins
from search_space.protocol import check_method


class _Known(NamedTuple):
    method: type[Method]
    owner: str
    built_in: bool


_known: dict[str, _Known] | None = None  # None until the first question
_filling = False  # whether homes and plug-ins are being imported
_lock = threading.RLock()  # a module that is imported under it may ask, and is told not to


def register(method: type[Method]) -> type[Method]:
    """Add a method to this process and return it; the same class may come again.

    Other processes, those of Ray's workers among them, find entry points alone.
    Raises InputError when a part of it is missing, or another has its name.
    """
    owner = f"{'.'.join(_home(method))}, registered in this process"
    known = _all()
    with _lock:
        _add(known, method, owner, built_in=False)
    return method


def find(name: object) -> type[Method]:
    """The method of a name. Raises UnknownMethod when there is none, and BrokenPlugIn, as all here
    do, where an installed method cannot be had."""
    known = _all()
    return known[known_word("selection", name, known, "method", UnknownMethod)].method


def has(selection: object) -> bool:
    """Whether an object is of a known method, and not of a class that has since been replaced."""
    known = _all().get(getattr(selection, "method", ""))
    return known is not None and known.method is type(selection)


def names() -> tuple[str, ...]:
    """Every method's name: those of this project in their order, then plug-ins."""
    return tuple(_all())


def built_in() -> tuple[str, ...]:
    """The names of this project's methods, in their order."""
    return tuple(name for name, known in _all().items() if known.built_in)


def _all() -> dict[str, _Known]:
    global _known, _filling
    if _known is None:
        with _lock:
            require(
                not _filling,
                "a method's module registers a method, or asks for one, while methods are looked "
                "for; do neither when it is imported: an entry point suffices",
            )
            # Another thread may have filled it meanwhile. What raises leaves it unfilled.
            if _known is None:
                _filling = True
                try:
                    _known = _filled()
                except InputError as error:
                    raise BrokenPlugIn(str(error)) from error
                finally:
                    _filling = False
    return _known


def _filled() -> dict[str, _Known]:
    found: dict[str, _Known] = {}
    own = sorted(homes(), key=lambda home: (home[1].order, home[0]))
    for owner, method in own:
        _add(found, method, owner, built_in=True)
    for owner, method in plug_ins():
        _add(found, method, owner, built_in=False)
    return found


def _add(known: dict[str, _Known], candidate: object, owner: str, *, built_in: bool) -> None:
    method = check_method(candidate, owner)
    before = known.get(method.method)
    if before is not None and _home(before.method) != _home(method):
        raise InputError(
            f"two selection methods are named {method.method!r}: {before.owner} has the name, and "
            f"{owner} wants it; rename one"
        )
    # A notebook's cell that runs again brings a new class of the same name.
    kept = before or _Known(method, owner, built_in)
    known[method.method] = kept._replace(method=method)


def _home(method: object) -> tuple[str, str]:
    return getattr(method, "__module__", ""), getattr(method, "__qualname__", repr(method))
