"""Exports of all designs compute elsewhere what their proxies do, and generate alike every way."""

from __future__ import annotations

import pytest

from benchmarks import exports
from benchmarks.exports_cases import CUSTOM, FORMS, cases
from search_space.methods import built_in
from search_space.presets import PRESETS

pytestmark = pytest.mark.slow


def test_every_preset_and_drawn_designs(prepared, monkeypatch):
    monkeypatch.setattr(exports, "run_child", prepared.run)
    designs = cases(6, families=("llama",))
    custom = {name: case for name, case in designs.items() if case.form == CUSTOM}
    assert set(PRESETS) < custom.keys() and len(custom) == len(PRESETS) + 6
    assert {case.spec.method for case in custom.values()} == set(built_in())
    assert {case.form for case in designs.values()} == set(FORMS)
    rows = list(exports.rows(exports.compare(designs)))
    assert [row for row in rows if not row.holds] == []


def test_a_difference_is_told_of():
    answers = {
        "a": {"error": 1e-6, "cached": True, "batched": True, "padded": True, "form": "cut"},
        "b": {"error": 1e-3, "cached": True, "batched": False, "padded": True, "form": "native"},
    }
    fallen = [row.name for row in exports.rows(answers) if not row.holds]
    assert fallen == [
        "native: largest error of a logit",
        "native: batched generation differs",
        "batched: b",
    ]
