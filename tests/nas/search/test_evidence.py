"""The deviation of one seed, and who may be the best within it."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from nas.search import evidence
from nas.search.evidence import Evidence, Runs, contenders, deviation, margin


def test_the_deviation_is_pooled_over_trials_with_their_own_means() -> None:
    values = {1: [2.0, 2.2], 2: [5.0, 5.1, 5.3], 3: [9.0]}
    squares = 0.02 + sum((x - 15.4 / 3) ** 2 for x in values[2])
    assert deviation(values) == pytest.approx(math.sqrt(squares / 3))
    assert deviation({1: [4.0, 4.5, 3.0]}) == pytest.approx(statistics.stdev([4.0, 4.5, 3.0]))


@pytest.mark.parametrize("values", [{}, {1: []}, {1: [2.0], 2: [3.0]}])
def test_without_two_runs_there_is_no_deviation(values) -> None:
    assert deviation(values) is None


def test_a_design_within_two_standard_errors_is_a_contender() -> None:
    assert contenders([], [], 0, 0.1) == ([], [])
    means = [(2.0, 5.0), (2.15, 5.0), (2.25, 5.0), (2.3, 4.0)]
    front, near = contenders(means, [1, 1, 1, 1], 0, 0.1)
    assert front == [True, False, False, True]
    assert near == [True, True, False, True]
    # With four seeds its margin is 0.1 rather than 0.2, and it drops out.
    assert contenders(means, [1, 4, 1, 1], 0, 0.1)[1] == [True, False, False, True]
    assert margin(0.1, 4) == pytest.approx(0.1)


def test_only_the_quality_is_noisy() -> None:
    means = [(5.0, 2.0), (5.0, 2.1), (5.1, 2.3)]
    assert contenders(means, [1, 1, 1], 1, 0.1)[1] == [True, True, False]
    assert contenders(means, [1, 1, 1], None, 0.1)[1] == [True, False, False]


@pytest.mark.parametrize("spread", [None, 0.0])
def test_without_a_deviation_the_frontier_alone_contends(spread) -> None:
    front, near = contenders([(1.0, 2.0), (1.0, 2.0), (1.0, 2.1)], [1, 2, 1], 0, spread)
    assert front == near == [True, True, False]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_contenders_are_the_slow_ones_in_chunks_as_well(objectives, monkeypatch) -> None:
    monkeypatch.setattr(evidence, "ROWS", 7)
    draw = random.Random(objectives)
    means = [tuple(float(draw.randrange(20)) for _ in range(objectives)) for _ in range(60)]
    seeds = [draw.randrange(1, 4) for _ in means]

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = []
    for i, mean in enumerate(means):
        lowered = (mean[0] - 2 * 1.5 / math.sqrt(seeds[i]), *mean[1:])
        others = [m for j, m in enumerate(means) if j != i]
        expected.append(not any(dominates(other, lowered) for other in others))
    assert contenders(means, seeds, 0, 1.5)[1] == expected


def test_means_count_each_run_and_need_no_order() -> None:
    runs = [(1.0, 1, 0, 2.0, 10.0), (2.0, 2, 1, 2.1, 8.0), (3.0, 3, 0, 2.4, 10.0)]
    runs.append((4.0, 4, 2, 1.0, 99.0))  # breaks a bound
    seen = {}

    def values(trial, bits, active):
        seen[trial] = (bits, active)
        return None if active > 50 else (bits, active)

    for order in (runs, runs[::-1]):
        log = Runs()
        found = Evidence(log, values, 2, 0)
        for n, run in enumerate(order, 1):
            log.add(*run)
            found.contenders(n)
        assert {c.number: c.on_frontier for c in found.contenders(4)} == {0: False, 1: True}
        assert found.deviation == pytest.approx(0.2828427)
        assert seen[0] == (2.2, 10.0)
        assert found.contenders(4) is found.contenders(4)
        assert {c.number for c in found.contenders(1)} == {0}


def test_a_mean_that_comes_to_break_a_bound_drops_out() -> None:
    log = Runs()
    found = Evidence(log, lambda trial, bits, active: None if active > 15 else (bits,), 1, 0)
    log.add(1.0, 1, 0, 2.0, 10.0)
    assert [c.number for c in found.contenders(1)] == [0]
    log.add(2.0, 2, 0, 2.0, 30.0)
    assert found.contenders(2) == []


def test_more_seeds_make_the_margin_smaller() -> None:
    log = Runs()
    found = Evidence(log, lambda trial, bits, active: (bits,), 1, 0)
    # In the end 0 has 2.1, 1 has 2.35, and the deviation is 0.17: 1 stays worse.
    runs = [(0, 2.0), (0, 2.2), (1, 2.2), (1, 2.5), (1, 2.2), (1, 2.5)]
    for at, (trial, bits) in enumerate(runs, 1):
        log.add(float(at), at, trial, bits, None)
    assert {c.number for c in found.contenders(3)} == {0, 1}
    assert {c.number for c in found.contenders(6)} == {0}
