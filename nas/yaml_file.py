"""Read a YAML file into plain data; whatever is wrong with it is one line with file and line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from search_space.errors import InputError


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would keep the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value!r} is given twice; keep one",
                    problem_mark=key.start_mark,
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. InputError for a file that is not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; give the path of a YAML file"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8: write the configuration as YAML") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeys)  # a SafeLoader: plain data alone
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line} is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        raise InputError(f"{path} is empty: write a mapping such as 'name: my-study'")
    if not isinstance(data, dict):
        raise InputError(
            f"{path} holds a {type(data).__name__}, not a mapping: write 'key: value' lines"
        )
    return data
