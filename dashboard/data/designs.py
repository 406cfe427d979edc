"""The designs of a study in columns: labels, methods, knobs; and each as a whole when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_space.methods import find, names
from search_space.spec import FFNSpec, label_of

_METHOD = "method"


class Specs(Mapping[int, Mapping[str, Any]]):
    """A trial's design by its number, as `FFNSpec.to_dict` has it; read when it is asked for."""

    def __init__(self, numbers: npt.NDArray[np.int64], texts: npt.NDArray[Any]) -> None:
        self._numbers, self._texts = numbers, texts

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        at = int(np.searchsorted(self._numbers, number))
        if at == len(self._numbers) or self._numbers[at] != number:
            raise KeyError(number)
        return FFNSpec.from_dict(json.loads(self._texts[at])).to_dict()

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers.tolist())

    def __len__(self) -> int:
        return len(self._numbers)

    def knobs(self) -> pd.DataFrame:
        """A row a trial: `method`, the fields of the design and of its selection, flat.

        Missing where a method has no such field. What a stored design leaves out has its default.
        """
        raw = [_flat(spec) for spec in decoded(self._texts)]
        names = dict.fromkeys(name for row in raw for name in row)
        columns = {name: [row.get(name) for row in raw] for name in names}
        found = pd.DataFrame(columns, index=pd.Index(self._numbers, name="trial"))
        for name, default in _defaults().items():
            found[name] = found[name].fillna(default) if name in found else default
        for method in found[_METHOD].unique() if len(found) else ():
            mine = found[_METHOD] == method
            for name, default in _fields_of(method).items():
                if name not in found:
                    found[name] = None
                found.loc[mine & found[name].isna(), name] = default
        found["expert_width"] = found["expert_width"].where(
            found["expert_width"] > 0, found["d_ff"] // found["depth"]
        )
        return found.infer_objects()


def decoded(texts: Iterable[str]) -> list[Any]:
    """JSON texts, read in one go: a tenth of the time of one by one."""
    found: list[Any] = json.loads(f"[{','.join(texts)}]")
    return found


def labels(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of stored designs, the labels and the methods. Raises for nonsense what `label_of` does."""
    specs = decoded(texts)
    if len(specs) != len(texts):
        raise ValueError("a stored design is no JSON")
    return [label_of(spec) for spec in specs], [_method(spec) for spec in specs]


def _method(spec: Mapping[str, Any]) -> str:
    selection = spec.get("selection", {})
    name = selection if isinstance(selection, str) else selection.get(_METHOD, names()[0])
    return str(name)


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in spec.items() if name != "selection"}
    selection = spec.get("selection", {})
    return own | ({_METHOD: selection} if isinstance(selection, str) else dict(selection))


def _defaults() -> dict[str, Any]:
    """Of the fields that every design has."""
    plain = FFNSpec(d_ff=1)
    return {
        each.name: getattr(plain, each.name)
        for each in fields(FFNSpec)
        if each.name not in ("selection", "d_ff", "expert_width")
    }


def _fields_of(method: str) -> dict[str, Any]:
    plain = find(method)()
    return {name: getattr(plain, name) for name in type(plain).fields()}
