"""The code of an export: the very code that trained, flattened into one folder.

transformers loads it beside the configuration, with `trust_remote_code=True`.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from search_space.backbone import Backbone
from search_space.design import Method
from search_space.errors import InputError, require
from search_space.placement import reference
from search_space.spec import FFNSpec

ROOT_MODULE = "workers.hf"
ROOTS = {ROOT_MODULE: "modeling_ffn_nas", "workers.hf_cut": "modeling_ffn_nas_cut"}
OURS = {"workers", "search_space"}
FINDING = "search_space.finding"  # an export has another module of this name: _FOUND


def module_name(dotted: str) -> str:
    """The name of a module inside the export: transformers wants one flat folder."""
    return ROOTS.get(dotted) or dotted.replace(".", "_")


def bundle_sources(*methods: type[Method], root: str = ROOT_MODULE) -> dict[str, str]:
    """File name -> text of a root and every module that it imports, of this project and of the
    plug-ins that methods may be. Of the methods these alone are there, with their layers.

    root: one of `ROOTS`.
    Raises InputError for a method whose modules cannot be copied.
    """
    found = _found(methods)
    ours = frozenset(OURS.union(*map(plug_in_packages, methods)))
    waiting, sources = [root], dict[str, str]()
    while waiting:
        dotted = waiting.pop()
        name = f"{module_name(dotted)}.py"
        if name not in sources:
            text, package = (found, "") if dotted == FINDING else _source(dotted)
            sources[name], imported = _flattened(text, package, ours)
            waiting.extend(imported)
    return sources


def methods_of(spec: FFNSpec, backbone: Backbone) -> list[type[Method]]:
    """The methods of a model's layers: the design's, and the reference's where not all have it."""
    everywhere = spec.placement == "all"
    used = [spec] if everywhere else [reference(backbone), spec]
    return list(dict.fromkeys(type(each.selection) for each in used))


def plug_in_packages(method: type[Method]) -> set[str]:
    """The packages from outside this project that a method and its layer are in."""
    return {place.split(".")[0] for place in (method.__module__, method.layer.split(":")[0])} - OURS


@functools.cache  # exports of one process share most of their modules
def _flattened(text: str, package: str, ours: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """A module's text with imports from one flat folder, and which modules it imports there.

    Raises InputError for an import of a module itself, which has another name there.
    """
    lines, imported = text.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            _refuse([each.name for each in node.names if each.name.split(".")[0] in ours])
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            module = importlib.util.resolve_name("." * node.level + module, package)
        if module.split(".")[0] in ours:
            _refuse([d for each in node.names if _is_module(d := f"{module}.{each.name}")])
            line, flat = node.lineno - 1, f"from .{module_name(module)} import"
            lines[line] = re.sub(r"from\s+[.\w]+\s+import", flat, lines[line], count=1)
            imported.append(module)
    return "".join(lines), tuple(imported)


def _refuse(modules: list[str]) -> None:
    require(
        not modules,
        "an export puts the code of its selection method into one flat folder, so that code "
        f"imports names, no modules: got {', '.join(modules)}; write from MODULE import NAME",
    )


def _is_module(dotted: str) -> bool:
    try:
        return importlib.util.find_spec(dotted) is not None
    except (ImportError, ValueError):  # it would lie in what is no package, or in __main__
        return False


def _source(dotted: str) -> tuple[str, str]:
    """A module's text, and the package that its relative imports start from."""
    # What is __main__ here is another module in a process that loads the export.
    spec = None if dotted == "__main__" else importlib.util.find_spec(dotted)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InputError(
            f"an export copies the code of its selection method, and {dotted} is no module with a "
            "file; put the method into a module and import it from there"
        )
    return Path(spec.origin).read_text(encoding="utf-8"), spec.parent or ""


_FOUND = '''"""The selection methods of this model, and their layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def homes() -> Iterator[tuple[str, Any]]:
    """The methods."""
    # Not at the head: a home imports what imports this.
    {homes}


def plug_ins() -> Iterator[tuple[str, Any]]:
    """None beside them."""
    yield from ()


def load(place: str) -> Any:
    """The layer at `module:name`."""
    {layers}

    return {{{places}}}[place]
'''


def _found(methods: Sequence[type[Method]]) -> str:
    """The text of the module that finds these methods in an export."""
    homes, layers, places = [], [], []
    for number, method in enumerate(methods):
        home, layer = f"Home{number}", f"Layer{number}"
        module, _, name = method.layer.partition(":")
        homes.append(f"from {method.__module__} import {method.__name__} as {home}")
        layers.append(f"from {module} import {name} as {layer}")
        places.append(f'"{method.layer}": {layer}')
    yields = [f'yield "this model", Home{number}' for number in range(len(methods))]
    return _FOUND.format(
        homes="\n    ".join([*homes, "", *yields]),
        layers="\n    ".join(layers),
        places=", ".join(places),
    )
