"""Where selection methods and their layers are found: homes in this project, and plug-ins.

An export carries another file under this name, with the one method that its model has.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from search_space.design import Method
from search_space.errors import InputError

HOMES = "search_space.methods"
GROUP = "ffn_nas.methods"  # of entry points


def homes() -> Iterator[tuple[str, Any]]:
    """Who has it, and the method, of each home in this project."""
    for info in pkgutil.iter_modules([str(Path(__file__).with_name("methods"))]):
        module = importlib.import_module(f"{HOMES}.{info.name}")
        for value in vars(module).values():
            own = getattr(value, "__module__", "") == module.__name__
            if own and isinstance(value, type) and issubclass(value, Method):
                yield module.__name__, value


def plug_ins() -> Iterator[tuple[str, Any]]:
    """Who has it, and the method, of each entry point of installed packages, by name.

    Raises InputError for one that cannot be imported.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        owner = f"the entry point {point.name} = {point.value}{_package(point)}"
        try:
            yield owner, point.load()
        except Exception as error:
            raise InputError(
                f"{owner} cannot be imported: {type(error).__name__}: {error}; mend or uninstall it"
            ) from error


def _package(point: EntryPoint) -> str:
    return f" of the package {point.dist.name} {point.dist.version}" if point.dist else ""


def load(place: str) -> Any:
    """The object at `module:name`. Raises InputError when there is none."""
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{place} cannot be imported: {error}; give module:Class") from error
