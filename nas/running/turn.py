"""What a driver tells whoever listens, at every turn of its loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nas.search.decisions import Counts
from nas.store import EvaluationRecord, TrialRecord
from search_space.contract import Progress


@dataclass(frozen=True)
class Running:
    """An evaluation that is under way, and the last that was heard of it."""

    trial: TrialRecord
    evaluation: EvaluationRecord
    progress: Progress | None


@dataclass(frozen=True)
class Turn:
    """Where a study stands after a turn of the driver's loop: what a display needs.

    trials: a live view, by number.
    running: what is under way.
    ended: since the last turn, each with its trial.
    counts: by rung, and FLOPs.
    refused: proposals of the sampler that were turned down.
    """

    trials: Collection[TrialRecord]
    running: list[Running]
    ended: list[tuple[TrialRecord, EvaluationRecord]]
    counts: Counts
    refused: int
