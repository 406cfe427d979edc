"""Columns of text as pandas keeps them, brought up to date row by row.

Dims: N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_NONE: pa.LargeStringArray = pa.array([], type=pa.large_string())


class Texts:
    """Arrays of Python's strings, converted: of one that was there before, only what differs.

    A study has ten such columns, and converts them at each look at it. The arrays are never changed
    in place (`dashboard.data.columns`). Not safe to share between threads.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[npt.NDArray[Any], pa.LargeStringArray]] = {}

    def of(self, name: str, values_N: npt.NDArray[Any]) -> pd.api.extensions.ExtensionArray:
        """The values (strings or None) as an array of pandas; `name` says of which column."""
        before, found = self._known.get(name, (values_N[:0], _NONE))
        if len(before) > len(values_N):
            before, found = values_N[:0], _NONE
        count = len(before)
        moved = np.asarray(before != values_N[:count], dtype=bool)
        if moved.any():
            found = pc.replace_with_mask(found, moved, _converted(values_N[:count][moved]))
        if count < len(values_N):
            found = pa.concat_arrays([found, _converted(values_N[count:])])
        self._known[name] = values_N, found
        array: pd.api.extensions.ExtensionArray = pd.array(found, dtype="str")
        return array


def _converted(values: npt.NDArray[Any]) -> pa.LargeStringArray:
    return pa.array(values, type=pa.large_string())
