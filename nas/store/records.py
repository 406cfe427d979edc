"""What the store returns: frozen records that outlive the database session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from search_space.contract import EvalResult, Status
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
    config: the study's configuration as plain data.  budget_flops: training FLOPs it may spend.
    objectives: names in `nas.objectives.OBJECTIVES`, all minimised; the first is the quality.
    facts: what was learnt on the way (corpus, n-gram baselines, machine).
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
    facts: dict[str, Any]
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One design being evaluated in a study.

    id: unique in the database.  number: 0, 1, 2... in its study.  key: the spec's.
    params: the sampler's parameters.  source: who proposed it (a preset, the sampler).
    train_flops: training FLOPs reserved for it.  cost: closed-form costs by name.
    result: None while the trial runs.
    """

    id: int
    study_id: int
    number: int
    spec: FFNSpec
    key: str
    params: dict[str, Any]
    seed: int
    source: str
    train_flops: float
    cost: dict[str, float]
    status: Status
    result: EvalResult | None
    created_at: datetime
    ended_at: datetime | None

    @property
    def bits_per_byte(self) -> float | None:
        """As measured; None while it runs and where it has none."""
        return self.result.bits_per_byte if self.result else None

    @property
    def active_flops(self) -> float | None:
        """FLOPs a token in inference as measured; None where they were not."""
        return self.result.active_flops if self.result else None


@dataclass(frozen=True, slots=True)
class TrialMeasures:
    """What comparing trials needs of one: a small part of `TrialRecord`, read in bulk."""

    number: int
    status: Status
    cost: dict[str, float]
    bits_per_byte: float | None
    active_flops: float | None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A study's account, in training FLOPs.

    reserved: held for running trials.  spent: by ended ones, which may exceed what was
    reserved for them by the rounding of a step.
    """

    budget: float
    reserved: float
    spent: float

    @property
    def left(self) -> float:
        """What a new trial may still reserve; negative when trials overspent."""
        return self.budget - self.reserved - self.spent
