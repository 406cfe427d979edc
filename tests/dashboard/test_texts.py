"""Columns of text that are brought up to date say what the values say, and convert few."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dashboard.data import texts
from dashboard.data.texts import Texts


def test_they_are_what_a_conversion_of_all_makes(monkeypatch) -> None:
    source, columns, before = np.random.default_rng(0), Texts(), np.zeros(0, dtype=object)
    words = np.array(["finished", "running", "", "größer", None], dtype=object)
    for step in range(30):
        values = np.concatenate([before, source.choice(words, size=int(source.integers(0, 9)))])
        if step == 17:  # another study in its place
            values = values[:3]
        for at in source.integers(0, len(values), size=min(2, len(values))).tolist():
            values[at] = source.choice(words)
        kept = values.copy()
        found, other = columns.of("status", values), columns.of("owner", values[::-1])
        pd.testing.assert_extension_array_equal(found, pd.array(values, dtype="str"))
        pd.testing.assert_extension_array_equal(other, pd.array(values[::-1], dtype="str"))
        assert (values == kept).all()
        before = values.copy()


def test_what_is_known_is_not_converted_again(monkeypatch) -> None:
    counted, convert = [], texts._converted
    monkeypatch.setattr(
        texts, "_converted", lambda values: counted.append(len(values)) or convert(values)
    )
    columns, values = Texts(), np.full(1000, "running", dtype=object)
    earlier = columns.of("status", values)
    values = np.append(values, "running")
    values[[3, 500]] = "finished"
    assert list(columns.of("status", values)[[3, 4, 500, 1000]]) == [
        *("finished", "running", "finished", "running")
    ]
    columns.of("status", values)
    assert counted == [1000, 2, 1]
    assert earlier[3] == "running", "a reading keeps what it was given"
