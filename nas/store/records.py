"""What the store returns: frozen records that outlive the database session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from nas.store.facts import Facts
from search_space.contract import EvalResult, LogLine, Status
from search_space.spec import FFNSpec


class StudyState(StrEnum):
    """Where a study stands. `RUNNING` is the only one that is not an ending."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One search.

    uid: 32 hex digits, drawn when the study was made: no other study anywhere has them.
    config: the study's configuration as plain data.
    budget_flops: training FLOPs it may spend.
    objectives: names in `nas.search.objectives`, all minimised; the first is the quality.
    facts: what was learnt before it began (corpus, n-gram baselines, machine).
    rungs: how many it has.
    deviation: the standard deviation of one seed at the top rung, in bits per byte, pooled over the
        trials that were repeated; None before any.
    owner, owner_since: who holds it ("" for nobody), as `nas.process.holder` says, since when.
    created_at, ended_at: aware UTC times.
    """

    id: int
    uid: str
    name: str
    config: dict[str, Any]
    seed: int
    budget_flops: float
    objectives: list[str]
    state: StudyState
    facts: Facts
    rungs: int = 1
    deviation: float | None = None
    owner: str = ""
    owner_since: datetime | None = None
    created_at: datetime
    ended_at: datetime | None = None

    @property
    def top(self) -> int:
        """The highest rung."""
        return self.rungs - 1


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One design of a study, and where it stands.

    id: unique in the database.
    number: 0, 1, 2... in its study.
    key: the spec's.
    params: the sampler's parameters.
    source: who proposed it (a preset, the sampler).
    cost: closed-form costs by name.
    status: of its first run; `FINISHED` once the top rung was measured, whatever repeats do.
    rung: the highest that was measured, None before any.
    seeds: runs that were measured there.
    bits_per_byte: their mean.
    active_flops: FLOPs a token in inference as measured, their mean.
    flops: training FLOPs spent on the trial, over all runs and rungs.
    result: how the first run's last evaluation ended; None before one has.
    """

    id: int
    study_id: int
    number: int
    spec: FFNSpec
    key: str
    params: dict[str, Any]
    source: str
    cost: dict[str, float]
    status: Status
    rung: int | None = None
    seeds: int = 0
    bits_per_byte: float | None = None
    active_flops: float | None = None
    flops: float = 0.0
    result: EvalResult | None = None
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """A run (a trial and a seed) that was, or is being, brought to a rung.

    trial: the trial's number.
    attempt: the fencing token, one more at each claim.
    losses: workers that it lost.
    owner: who holds its lease, "" for nobody.
    until_flops, start_flops: as in `EvalRequest`.
    reserved: FLOPs held for it now.
    flops: FLOPs charged for it so far.
    trunk_flops: where its branch left the trunk.
    The measures are None unless it finished.
    """

    id: int
    trial_id: int
    trial: int
    seed: int
    rung: int
    attempt: int
    losses: int
    owner: str
    status: Status
    until_flops: float
    start_flops: float
    reserved: float
    flops: float
    trunk_flops: float
    bits_per_byte: float | None
    bits_per_byte_se: float | None
    active_flops: float | None
    seconds: float
    error: str
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class EvaluationLog:
    """What was said during an evaluation: its newest lines, in order.

    earlier: how many came before these.
    """

    lines: tuple[LogLine, ...]
    earlier: int


@dataclass(frozen=True, slots=True)
class TrialMeasures:
    """What comparing trials needs of one: a small part of `TrialRecord`, read in bulk."""

    number: int
    status: Status
    cost: dict[str, float]
    rung: int | None
    seeds: int
    bits_per_byte: float | None
    active_flops: float | None


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run as it was measured at a rung: what paired comparisons need.

    trial: the trial's number.
    seed: the run's.
    until_flops: the rung's level, in training FLOPs.
    bits_per_byte, bits_per_byte_se: as in `EvalResult`.
    windows: nats of each validation window; () where they were not kept, or not asked for.
    copying: as workers.training.copying has it; None where it was not measured, or not asked for.
    """

    trial: int
    seed: int
    until_flops: float
    bits_per_byte: float
    bits_per_byte_se: float | None
    windows: Sequence[float] = ()
    copying: float | None = None


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A driver's right to write a study.

    owner: as `StudyRecord.owner`.
    fence: the token that its writes show; a later holder has a higher one.
    """

    study_id: int
    owner: str
    fence: int


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A study's account, in training FLOPs.

    reserved: held for evaluations that have not ended.
    spent: by ended ones, which may exceed what was reserved for them by the rounding of a step.
    """

    budget: float
    reserved: float
    spent: float

    @property
    def left(self) -> float:
        """What may still be reserved; negative when evaluations overspent."""
        return self.budget - self.reserved - self.spent
