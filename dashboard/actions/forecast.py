"""What a study will cost before it starts: FLOPs, designs at each rung, time on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.config import StudyConfig
from nas.machines import Workers, this_machine
from nas.search.rungs import expected_flops, expected_runs
from nas.store import StudyRecord
from nas.store.tallies import Speed
from search_space.backbone import Backbone
from search_space.contract import TRAINING
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.placement import reference
from search_space.rates import AUTO

ALIKE = 4.0  # times as large or small a model says little of the time


@dataclass(frozen=True)
class Rate:
    """What one worker of this machine did in a study of this database.

    flops_a_second: training FLOPs.
    ratio: of the new study's dense model's FLOPs a token to that study's.
    """

    study: str
    flops_a_second: float
    evaluations: int
    ratio: float

    @property
    def alike(self) -> bool:
        """Whether the models are about as large, so that the rate says much."""
        return 1 / ALIKE <= self.ratio <= ALIKE


@dataclass(frozen=True)
class Forecast:
    """Of a study that is yet to start.

    flops: training FLOPs of all of it.
    runs: designs that are measured at each rung, as expected, the lowest first.
    levels: training FLOPs of a run at each rung.
    workers: evaluations at a time.
    rate: None where nothing was measured on this machine.
    """

    flops: float
    runs: tuple[float, ...]
    levels: tuple[float, ...]
    workers: int
    rate: Rate | None

    @property
    def seconds(self) -> float | None:
        """That the study will take; None where no rate is known."""
        if self.rate is None:
            return None
        return self.flops / (self.rate.flops_a_second * self.workers)


def forecast(config: StudyConfig, rate: Rate | None) -> Forecast:
    """The study's plan in numbers."""
    plan, warm = config.plan(), len(config.warm_start)
    trials = config.budget.trials
    if config.budget.flops:  # fewer designs than asked for, where they cost more than there is
        asked = expected_flops(
            plan.levels, plan.decay, plan.reduction, trials, warm, plan.repeat_share
        )
        trials = min(trials, max(1, math.floor(trials * plan.flops / asked)))
    runs = expected_runs(len(plan.levels), plan.reduction, trials, warm)
    return Forecast(plan.flops, runs, plan.levels, config.workers.at_once, rate)


def measured_rate(
    config: StudyConfig, studies: Sequence[StudyRecord], speeds: Mapping[int, Speed]
) -> Rate | None:
    """What is known of this machine from the study whose model is nearest to the new one's.

    studies: of the database, the newest first.
    speeds: by study id.
    """
    here, wanted = this_machine(), _model_flops(config.backbone)
    found = []
    for study in studies:
        comparable = study.facts.machine == here and study.facts.training == TRAINING
        if study.id not in speeds or not comparable or _workers(study) != _workers_of(config):
            continue
        try:
            backbone = Backbone.from_dict(study.config.get("backbone") or {})
        except InputError:  # another version's
            continue
        speed = speeds[study.id]
        ratio = wanted / _model_flops(backbone)
        rate = speed.flops / speed.seconds
        found.append(Rate(study.name, rate, speed.evaluations, ratio))
    return min(found, key=lambda rate: abs(math.log(rate.ratio)), default=None)


def _model_flops(backbone: Backbone) -> float:
    return model_cost(reference(backbone), backbone).training_flops


def _workers(study: StudyRecord) -> tuple[object, ...]:
    stored = study.config.get("workers") or {}
    return tuple(_speed(stored.get(name, getattr(Workers(), name))) for name in _SAME)


def _workers_of(config: StudyConfig) -> tuple[object, ...]:
    return tuple(_speed(getattr(config.workers, name)) for name in _SAME)


def _speed(value: object) -> object:
    # Without a GPU "auto" reserves none, and the machine is the same, so what it has is, too.
    return 0.0 if value == AUTO else value


# A worker is as fast as another only where these are the same.
_SAME = ("gpus_per_trial", "threads", "ray_address")


def duration(seconds: float) -> str:
    """For people: `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min"
    days, hours = divmod(hours, 24)
    return f"{days:,} d {hours} h"
