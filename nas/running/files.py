"""The files of a running study: where its runs keep states and weights, and which nobody needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nas.models.checkpoints import discard_states, kept_runs, run_folder, state_place, trial_folder
from nas.store import EvaluationRecord, StudyRecord
from search_space.contract import Status


class RunFiles:
    """Of one study; every question is about an evaluation of it."""

    def __init__(self, study: StudyRecord, folder: Path, state_url: str, top: int) -> None:
        """Remember where the study's files lie.

        study: as it is stored.
        folder: the study's own.
        state_url: where states lie instead, "" for that folder.
        top: the highest rung.
        """
        self._folder, self._top, self._seed = folder, top, study.seed
        self._place = state_place(folder, state_url, study)

    def states(self, evaluation: EvaluationRecord) -> str:
        """The folder or URL of its run's states."""
        return f"{self._place}/{run_folder(evaluation.trial, evaluation.seed)}"

    def weights(self, evaluation: EvaluationRecord) -> str:
        """The folder of the weights that it leaves; "" when they are not kept."""
        if not self._keeps_weights(evaluation):
            return ""
        return str(self._folder / trial_folder(evaluation.trial, evaluation.attempt))

    def discard_after(self, ended: EvaluationRecord) -> None:
        """Remove what nobody needs once it has ended so."""
        if ended.status.final and not self._may_go_on(ended):
            discard_states(self.states(ended))
        self._discard_given_up(ended)

    def discard_left(self, evaluations: Sequence[EvaluationRecord]) -> None:
        """Remove what a former driver was killed before it could; of all of a study's."""
        kept = kept_runs(self._place) if evaluations else set()
        highest = {
            run_folder(each.trial, each.seed): each
            for each in sorted(evaluations, key=lambda each: each.rung)
        }
        for run in kept & highest.keys():
            if highest[run].status.final and not self._may_go_on(highest[run]):
                discard_states(f"{self._place}/{run}")
        for each in highest.values():
            self._discard_given_up(each)

    def _discard_given_up(self, ended: EvaluationRecord) -> None:
        """Remove the weights of attempts that were lost after they had written them."""
        if ended.status.final and self._keeps_weights(ended):
            for attempt in range(1, ended.attempt):
                place = self._folder / trial_folder(ended.trial, attempt)
                shutil.rmtree(place, ignore_errors=True)

    def _keeps_weights(self, evaluation: EvaluationRecord) -> bool:
        """Weights are kept of what an export can ask for: the first run, at the top."""
        return evaluation.rung == self._top and evaluation.seed == self._seed

    def _may_go_on(self, ended: EvaluationRecord) -> bool:
        """Whether a promotion can need the run's states."""
        return ended.status is Status.FINISHED and ended.rung < self._top
