"""What a study found of a trial that is exported: for its card, its picture and its check."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.search.bounds import limits
from nas.search.paired import Measurement
from nas.search.pareto import feasible_values, frontier
from nas.store import Store, StudyRecord, TrialRecord
from nas.store.records import MeasuredRun

AXES = ("bits_per_byte", "active_flops")


@dataclass(frozen=True)
class Point:
    """A finished trial of the study, feasible as measured."""

    number: int
    bits_per_byte: float
    active_flops: float
    on_front: bool


@dataclass(frozen=True)
class Found:
    """Of the exported trial and its study.

    points: by active FLOPs.
    run: the exported run as it was measured, with the nats of its windows.
    seeds: that the trial was measured with at the top rung.
    mean: of their bits per byte.
    deviation: of one seed, pooled over the study; None where nothing was repeated.
    """

    points: tuple[Point, ...]
    run: MeasuredRun | None
    seeds: int
    mean: float
    deviation: float | None

    @property
    def mean_error(self) -> float | None:
        """Of the mean, from seeds alone; None where a seed's deviation is not known."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.seeds)


def alone(study: StudyRecord, trial: TrialRecord) -> Found:
    """The same of a trial without its study's others."""
    result = trial.result
    assert result is not None
    assert result.bits_per_byte is not None
    active = result.active_flops or trial.cost["active_flops"]
    point = Point(trial.number, result.bits_per_byte, active, True)
    return Found((point,), None, 1, result.bits_per_byte, study.deviation)


def found(store: Store, study: StudyRecord, trial: TrialRecord) -> Found:
    """Read it. The exported weights are those of the study's own seed."""
    bounds = limits(study)
    measures = store.measures(study.id)
    front = {each.number for each in frontier(measures, AXES, bounds)}
    points = sorted(
        (
            Point(each.number, bits, active, each.number in front)
            for (bits, active), each in feasible_values(measures, AXES, bounds)
        ),
        key=lambda point: point.active_flops,
    )
    runs = store.measured_runs(study.id, [trial.number], study.top)
    run = next((each for each in runs if each.seed == study.seed), None)
    mean = Measurement(tuple(runs)).bits_per_byte if runs else trial.bits_per_byte
    assert mean is not None  # it has a checkpoint, so it was measured
    return Found(tuple(points), run, max(1, len(runs)), mean, study.deviation)
