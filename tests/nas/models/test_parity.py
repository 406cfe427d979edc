"""Exports of all designs compute elsewhere what their proxies do, and generate alike every way."""

from __future__ import annotations

import pytest

from benchmarks import exports
from search_space.methods import built_in
from search_space.presets import PRESETS

pytestmark = pytest.mark.slow


def test_every_preset_and_drawn_designs():
    designs = exports.specs(6)
    assert set(PRESETS) < designs.keys() and len(designs) == len(PRESETS) + 6
    assert {spec.method for spec in designs.values()} == set(built_in())
    rows = list(exports.rows(exports.compare(designs)))
    assert [row for row in rows if not row.holds] == []


def test_a_difference_is_told_of():
    answers = {
        "a": {"error": 1e-6, "cached": True, "batched": True, "padded": True},
        "b": {"error": 1e-3, "cached": True, "batched": False, "padded": True},
    }
    fallen = [row.name for row in exports.rows(answers) if not row.holds]
    assert fallen == [
        "largest error of a logit",
        "batched generation differs",
        "batched: b",
    ]
