"""Where a trial stands, made of its evaluations: pure, so that a trial's row can hold it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from search_space.contract import Status


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The part of a trial's row that its evaluations decide; see `TrialRecord`."""

    status: Status
    rung: int | None
    seeds: int
    bits_per_byte: float | None
    active_flops: float | None
    flops: float
    evaluation_id: int | None
    ended_at: datetime | None


def standing(evaluations: Sequence[Any], rungs: int) -> Standing:
    """What the evaluations of one trial say of it.

    evaluations: rows with id, run_id, rung, status, bits_per_byte, active_flops, flops and
        ended_at; at least one.
    rungs: how many the study has.
    """
    first = min(row.run_id for row in evaluations)
    mine = sorted((row for row in evaluations if row.run_id == first), key=lambda row: row.rung)
    measured = [row for row in mine if Status(row.status) is Status.FINISHED]
    rung = measured[-1].rung if measured else None
    peers = [
        row for row in evaluations if row.rung == rung and Status(row.status) is Status.FINISHED
    ]
    status = _status(mine, rungs)
    shown = _shown(mine)
    active = [row.active_flops for row in peers if row.active_flops is not None]
    return Standing(
        status=status,
        rung=rung,
        seeds=len(peers),
        bits_per_byte=mean([row.bits_per_byte for row in peers]) if peers else None,
        active_flops=mean(active) if active else None,
        flops=math.fsum(row.flops for row in evaluations),
        evaluation_id=shown.id if shown is not None else None,
        ended_at=shown.ended_at if shown is not None and status.ended else None,
    )


def mean(values: Sequence[float]) -> float:
    """The mean, of at least one value."""
    return math.fsum(values) / len(values)


def pooled_deviation(values_by_trial: Iterable[Sequence[float]]) -> float | None:
    """The standard deviation of one seed, pooled over trials; None without a repeat.

    sqrt(sum over trials of sum (x - mean)^2 / sum over trials of (n - 1)).
    """
    squares, freedom = 0.0, 0
    for values in values_by_trial:
        if len(values) < 2:
            continue
        middle = mean(values)
        squares += math.fsum((value - middle) ** 2 for value in values)
        freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _status(mine: Sequence[Any], rungs: int) -> Status:
    """Of the first run, its evaluations by rung."""
    statuses = [Status(row.status) for row in mine]
    for status in (Status.RUNNING, Status.STOPPED):
        if status in statuses:
            return status
    if statuses[-1] is Status.FINISHED and mine[-1].rung < rungs - 1:
        return Status.PAUSED
    return statuses[-1]


def _shown(mine: Sequence[Any]) -> Any | None:
    """The evaluation whose ending is the trial's: the last that has one, or was stopped."""
    final = [row for row in mine if Status(row.status).final]
    ended = final or [row for row in mine if Status(row.status) is Status.STOPPED]
    return ended[-1] if ended else None
