"""Names of studies: what is legal, and which one is free."""

from __future__ import annotations

import re
from collections.abc import Container
from itertools import count

from nas.store.models import NAME_LENGTH
from search_space.errors import require, shown

_LEGAL = re.compile(rf"(?![.-])[A-Za-z0-9._-]{{1,{NAME_LENGTH}}}")


def is_legal(name: object) -> bool:
    """Whether a study may have that name."""
    return isinstance(name, str) and _LEGAL.fullmatch(name) is not None


def check_name(name: object) -> None:
    """Raise InputError unless `name` is legal: it also names folders and command arguments."""
    require(
        is_legal(name),
        f"a study's name has 1 to {NAME_LENGTH} letters, digits, '.', '_' or '-', and starts "
        f"with none of '.' and '-': got {shown(name)}",
    )


def free_name(base: str, taken: Container[str]) -> str:
    """`base`, or the first of `base-2`, `base-3`... that is not taken."""
    if base not in taken:
        return base
    for n in count(2):
        suffix = f"-{n}"
        name = base[: NAME_LENGTH - len(suffix)] + suffix
        if name not in taken:
            return name
    raise AssertionError("count() does not end")
