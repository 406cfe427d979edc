"""The table of knobs is the same whether Arrow reads the stored designs or Python does."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.reading_store import TWO_EACH
from benchmarks.reading_store import fill as fill_many
from dashboard.data import designs
from dashboard.data.designs import Specs
from nas.store import Store

PLAIN = {"d_ff": 96, "expert_width": 0, "selection": {"method": "dense"}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> list[str]:
    """Designs of all the made-up study's methods, as the store has them."""
    url = f"sqlite:///{tmp_path_factory.mktemp('knobs')}/nas.db"
    with Store.open(url) as store:
        fill_many(store, 90, 1, TWO_EACH)
        (study,) = store.studies()
        return list(store.trial_columns(study.id, None)["spec"])


def knobs(texts: list[str]) -> pd.DataFrame:
    return Specs(np.arange(len(texts)), np.array(texts, dtype=object)).knobs()


@pytest.mark.parametrize(
    "more",
    [
        [],
        [{"lr_multiplier": 1}, {"lr_multiplier": 1.5}],
        [{"gated": True}, {"gated": False}, {}],
        [{"selection": {"method": "topk", "k": 2, "of_a_plug_in": "größer"}}],
    ],
)
def test_arrow_and_python_say_the_same(stored, more, monkeypatch) -> None:
    texts = [*stored, *(json.dumps(PLAIN | each) for each in more)]
    assert designs._table(np.array(texts, dtype=object)) is not None, "Arrow reads them"
    found = knobs(texts)
    monkeypatch.setattr(designs, "_table", lambda _: None)
    pd.testing.assert_frame_equal(found, knobs(texts), check_like=True)


@pytest.mark.parametrize(
    "odd",
    [
        {"selection": "dense"},
        {"gated": "a word"},
        {"selection": {"method": "topk", "of_a_plug_in": [1, 2]}},
    ],
)
def test_what_arrow_does_not_read_python_reads(stored, odd) -> None:
    texts = [*stored, json.dumps(PLAIN | odd)]
    assert designs._table(np.array(texts, dtype=object)) is None
    row = knobs(texts).iloc[-1]
    selection = odd.get("selection", "dense")
    expected = {"method": selection} if isinstance(selection, str) else selection
    expected = {**odd, **expected}
    expected.pop("selection", None)
    assert row[list(expected)].to_dict() == expected
