"""What steps are held against: the products' rate, and turns."""

from __future__ import annotations

import pytest

from benchmarks import products
from benchmarks.products import best_rate, cubes
from benchmarks.turns import ratio, take_turns
from workers.kernels.products import Measured


@pytest.mark.parametrize(("error", "libraries"), [(1e-6, 2), (3e-4, 1), (float("nan"), 1)])
def test_only_libraries_of_float32_make_the_rate(monkeypatch, error, libraries):
    monkeypatch.setattr(products, "measured", lambda threads: Measured(1.0, 2.0, 2.0, error))
    calls = cubes()
    assert len(calls) == libraries
    assert all(seconds[0] > 0 for seconds in take_turns(calls, turns=1))


def test_the_fastest_library_counts():
    assert best_rate([[3.0, 4.0, 3.0], [1.0, 2.0, 1.0]]) == ([1.0, 2.0, 1.0], 3.0)
    assert best_rate([[1.0, 2.0, 1.0], [3.0, 4.0, 3.0]]) == ([1.0, 2.0, 1.0], 1.0)


def test_calls_take_turns_and_a_ratio_is_of_the_same_turn():
    order = []
    seconds = take_turns([lambda: order.append("a"), lambda: order.append("b")], turns=3)
    assert order == ["a", "b"] * 5  # two turns of warm-up
    assert [len(own) for own in seconds] == [3, 3]
    assert ratio([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]) == 4.0
