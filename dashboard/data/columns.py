"""The store's columns as numpy arrays: made, and brought up to date row by row.

Dims: N rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard.data.texts import Texts

Kind = Literal["int", "float", "text", "time"]
Block = dict[str, npt.NDArray[Any]]  # column -> values (N,); never changed in place
EVALUATION: Mapping[str, Kind] = {
    "id": "int",
    "trial_id": "int",
    "trial": "int",
    "seed": "int",
    "rung": "int",
    "attempt": "int",
    "losses": "int",
    "owner": "text",
    "status": "text",
    "until_flops": "float",
    "start_flops": "float",
    "reserved": "float",
    "flops": "float",
    "trunk_flops": "float",
    "bits_per_byte": "float",
    "bits_per_byte_se": "float",
    "active_flops": "float",
    "seconds": "float",
    "error": "text",
    "created_at": "time",
    "ended_at": "time",
}
TRIAL: Mapping[str, Kind] = {
    "number": "int",
    "spec": "text",
    "source": "text",
    "status": "text",
    "rung": "float",  # missing before any was measured
    "seeds": "int",
    "bits_per_byte": "float",
    "active_flops": "float",
    "flops": "float",
    "evaluation_id": "float",
}


def block(table: Mapping[str, Sequence[Any]], kinds: Mapping[str, Kind]) -> Block:
    """The columns of a table that `kinds` names.

    Raises ValueError or TypeError for a value that is of another kind.
    """
    return {name: array(table[name], kind) for name, kind in kinds.items()}


def array(values: Sequence[Any], kind: Kind) -> npt.NDArray[Any]:
    """Values as one array; None is NaN or NaT."""
    if kind == "text":
        found = np.empty(len(values), dtype=object)
        # A status or an owner comes a hundred thousand times: one string, not as many.
        found[:] = list(map(sys.intern, values))
        return found
    if kind == "time":
        naive = [None if each is None else each.removesuffix("Z") for each in values]
        return np.array(naive, dtype="datetime64[us]")
    return np.array(values, dtype=np.int64 if kind == "int" else np.float64)


def patched(before: Block, more: Block, key: str) -> Block:
    """`before` with the rows of `more`: those of a known key take its place, others come last.

    key: the column, ascending in both, and new keys above all known.
    """
    known = before[key]
    place = np.searchsorted(known, more[key])
    old = place < len(known)
    old[old] = known[place[old]] == more[key][old]
    out = {}
    for name, values in before.items():
        merged = np.concatenate([values, more[name][~old]])
        merged[place[old]] = more[name][old]
        out[name] = merged
    return out


def rows(of: Block, mask: npt.NDArray[Any]) -> Block:
    """Some rows, by a mask or by places."""
    return {name: values[mask] for name, values in of.items()}


def differ(a: Block, b: Block, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether rows (N,) differ in any of these columns; missing values are alike."""
    found = np.zeros(len(a[names[0]]), dtype=bool)
    for name in names:
        x, y = a[name], b[name]
        same = np.asarray(x == y, dtype=bool)
        if x.dtype.kind in "fM":
            same |= pd.isna(x) & pd.isna(y)
        found |= ~same
    return found


def frame(of: Mapping[str, Any], index: str, texts: Texts) -> pd.DataFrame:
    """A data frame over the arrays themselves; `index` names the column that is its index.

    texts: converts the strings of this frame, and of it alone.
    """
    columns: dict[str, Any] = {}
    for name, values in of.items():
        if name == index:
            continue
        columns[name] = values
        if isinstance(values, np.ndarray) and values.dtype.kind == "M":
            columns[name] = pd.DatetimeIndex(values).tz_localize("UTC")
        elif isinstance(values, np.ndarray) and values.dtype.kind == "O":
            columns[name] = texts.of(name, values)
    found = pd.DataFrame(columns, copy=False)
    found.index = pd.Index(of[index], name=index)
    return found


def instants(times: pd.Series) -> npt.NDArray[np.datetime64]:
    """Times (N,) in UTC as numpy has them. `to_numpy` makes a Python object of each: a hundred
    thousand take 0.3 s."""
    found: npt.NDArray[np.datetime64] = times.dt.tz_convert(None).to_numpy()
    return found
