"""Where a trial stands, in every combination of its evaluations."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from nas.store.standing import pooled_deviation, standing
from search_space.contract import Status

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING, STOPPED, FINISHED = Status.RUNNING, Status.STOPPED, Status.FINISHED
FAILURES = (Status.DIVERGED, Status.OUT_OF_MEMORY, Status.FAILED)


@dataclass
class Row:
    """The columns of an evaluation that count."""

    id: int
    run_id: int
    rung: int
    status: str
    bits_per_byte: float | None
    active_flops: float | None
    flops: float
    ended_at: datetime | None


def row(id: int, status: Status, rung: int = 0, run: int = 1, bits: float = 2.0) -> Row:
    measured = status is FINISHED
    return Row(
        id=id,
        run_id=run,
        rung=rung,
        status=status.value,
        bits_per_byte=bits if measured else None,
        active_flops=100.0 * bits if measured else None,
        flops=10.0**id,
        ended_at=None if status is RUNNING else BEGAN + timedelta(seconds=id),
    )


def end(id: int) -> datetime:
    return BEGAN + timedelta(seconds=id)


@pytest.mark.parametrize("status", [RUNNING, STOPPED, *FAILURES])
def test_before_any_measure_a_trial_stands_as_its_evaluation(status: Status) -> None:
    found = standing([row(1, status)], rungs=3)
    assert (found.status, found.rung, found.seeds) == (status, None, 0)
    assert (found.bits_per_byte, found.active_flops, found.flops) == (None, None, 10.0)
    assert found.evaluation_id == (None if status is RUNNING else 1)
    assert found.ended_at == (None if status is RUNNING else end(1))


@pytest.mark.parametrize(("rung", "rungs"), [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)])
def test_a_measure_below_the_top_pauses_and_one_at_the_top_finishes(rung: int, rungs: int) -> None:
    found = standing([row(1, FINISHED, rung)], rungs)
    assert found.status is (FINISHED if rung == rungs - 1 else Status.PAUSED)
    assert (found.rung, found.seeds, found.bits_per_byte) == (rung, 1, 2.0)
    assert (found.evaluation_id, found.ended_at) == (1, end(1))


@pytest.mark.parametrize(("lower", "upper"), [(0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("status", [RUNNING, STOPPED, *FAILURES])
def test_a_higher_rung_that_is_not_measured_leaves_the_measure_of_the_lower(
    status: Status, lower: int, upper: int
) -> None:
    found = standing([row(1, FINISHED, lower), row(2, status, upper, bits=9.0)], rungs=3)
    assert (found.status, found.rung, found.seeds) == (status, lower, 1)
    assert (found.bits_per_byte, found.active_flops, found.flops) == (2.0, 200.0, 110.0)
    # An ending that is final is shown; what runs or can go on shows the last one that is.
    assert found.evaluation_id == (2 if status.final else 1)
    assert found.ended_at == {RUNNING: None, STOPPED: end(1)}.get(status, end(2))


def test_the_highest_rung_counts_whatever_the_order_of_rows() -> None:
    rows = [row(3, FINISHED, 2, bits=1.0), row(1, FINISHED, 0), row(2, FINISHED, 1)]
    found = standing(rows, rungs=3)
    assert (found.status, found.rung, found.bits_per_byte) == (FINISHED, 2, 1.0)
    assert (found.evaluation_id, found.flops) == (3, 1110.0)


@pytest.mark.parametrize("repeat", [each for each in Status if each is not Status.PAUSED])
def test_a_repeat_adds_a_seed_or_nothing_and_never_changes_the_status(repeat: Status) -> None:
    found = standing([row(1, FINISHED), row(2, repeat, run=2, bits=3.0)], rungs=1)
    assert (found.status, found.rung) == (FINISHED, 0)
    assert (found.evaluation_id, found.ended_at) == (1, end(1))
    assert found.flops == 110.0, "what a repeat costs is the trial's"
    if repeat is FINISHED:
        assert (found.seeds, found.bits_per_byte, found.active_flops) == (2, 2.5, 250.0)
    else:
        assert (found.seeds, found.bits_per_byte, found.active_flops) == (1, 2.0, 200.0)


def test_a_repeat_at_another_rung_is_no_peer() -> None:
    rows = [row(1, FINISHED, 0), row(2, FINISHED, 1, bits=1.0), row(3, FINISHED, 0, run=2)]
    found = standing(rows, rungs=2)
    assert (found.rung, found.seeds, found.bits_per_byte) == (1, 1, 1.0)


def test_a_trial_whose_first_run_failed_is_not_saved_by_a_repeat() -> None:
    found = standing([row(1, Status.FAILED), row(2, FINISHED, run=2)], rungs=1)
    assert (found.status, found.rung, found.seeds, found.bits_per_byte) == (
        Status.FAILED, None, 0, None,
    )  # fmt: skip
    assert found.evaluation_id == 1


def test_every_pair_of_rungs_stands_as_the_last_thing_that_happens() -> None:
    for low, high in product(set(Status) - {Status.PAUSED}, repeat=2):
        found = standing([row(1, low, 0), row(2, high, 1)], rungs=2)
        alive = [status for status in (RUNNING, STOPPED) if status in (low, high)]
        assert found.status is (alive[0] if alive else high), (low, high)
        assert (found.bits_per_byte is None) == (FINISHED not in (low, high))
        assert (found.rung is None) == (found.seeds == 0)


def test_the_deviation_of_one_seed_is_pooled_over_trials() -> None:
    trials = [[2.0, 2.2], [1.0], [3.0, 3.1, 3.5], []]
    squares = sum(statistics.variance(t) * (len(t) - 1) for t in trials if len(t) > 1)
    assert pooled_deviation(trials) == pytest.approx(math.sqrt(squares / 3))
    assert pooled_deviation([[2.0, 2.0]]) == 0.0
    assert pooled_deviation([[2.0], [3.0]]) is None
    assert pooled_deviation([]) is None
