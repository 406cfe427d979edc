"""The designs of a study in columns: labels, methods, knobs; and each as a whole when asked for."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.json

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

    def stored(self, numbers: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """These trials' designs as they are stored, unchecked; all of them are there."""
        return decoded(self._texts[np.searchsorted(self._numbers, numbers)])

    def knobs(self) -> pd.DataFrame:
        """A row a trial: `method`, the fields of the design and of its selection, flat.

        Missing where a method has no such field. What a stored design leaves out has its default.
        """
        with uncollected():
            found = _flat_frame(self._texts)
        found.index = pd.Index(self._numbers, name="trial")
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


@contextmanager
def uncollected() -> Iterator[None]:
    """Without a search for cycles among millions of objects that have none: it takes as long as
    what is done meanwhile."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
    if isinstance(selection, str):
        return selection
    name = selection.get(_METHOD)
    return str(names()[0] if name is None else name)


def _flat_frame(texts: npt.NDArray[Any]) -> pd.DataFrame:
    """The fields of designs and of their selections, a row a design; missing where it has none."""
    table = _table(texts)
    if table is not None:
        found: pd.DataFrame = table.to_pandas()
        return found
    rows = [_flat(spec) for spec in decoded(texts)]
    columns = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in columns})


def _table(texts: npt.NDArray[Any]) -> pa.Table | None:
    """The same as Arrow reads it, beside the interpreter and in a third of the time; None where it
    does not: a selection that is a name alone, a field that is a word here and a number there."""
    lines = "\n".join(texts).encode()  # the JSON of a design is one line
    whole = pa.json.ReadOptions(block_size=len(lines) + 1)
    try:
        found = pa.json.read_json(BytesIO(lines), read_options=whole).flatten()
    except pa.ArrowInvalid:
        return None
    names_ = [name.removeprefix("selection.") for name in found.column_names]
    simple = not any(pa.types.is_nested(each.type) for each in found.schema)
    if len(found) != len(texts) or len(set(names_)) < len(names_) or not simple:
        return None
    return found.rename_columns(names_) if "selection" not in names_ else None


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(spec)
    selection = flat.pop("selection", {})
    flat.update({_METHOD: selection} if isinstance(selection, str) else selection)
    return flat


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
