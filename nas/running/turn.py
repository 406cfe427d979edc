"""What a driver tells whoever listens, at every turn of its loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from nas.search.decisions import Counts
from nas.store import EvaluationRecord, TrialRecord
from search_space.contract import EvalResult, Progress


@dataclass(frozen=True)
class Running:
    """An evaluation that is under way, and the last that was heard of it."""

    trial: TrialRecord
    evaluation: EvaluationRecord
    progress: Progress | None

    def with_flops(self, result: EvalResult) -> EvalResult:
        """A worker that died could not say what it spent: the last progress did."""
        if self.progress is None:
            return result
        flops = self.progress.flops - self.evaluation.start_flops
        if result.flops >= flops:
            return result
        return replace(result, flops=flops, seconds=self.progress.seconds)


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
