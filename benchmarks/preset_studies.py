"""Studies of warm starts alone, in a database: brought to their ends, and what came of each design.

A study goes on where it was cut. One of another configuration, text or design is another study,
whatever its name: nothing of it is mixed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import commit
from nas.config import StudyConfig
from nas.running.driver import StudyFailed
from nas.running.launcher import PoolFactory, launch_study, resume_study
from nas.running.turn import Turn
from nas.store import EvaluationRecord, Facts, Store, StudyRecord, StudyState
from nas.store.records import MeasuredRun
from search_space.contract import TRAINING, Status

UNIT = "bits per byte"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended.

    error: one line where it did not finish.
    seconds: of training alone.
    run: its measurement, with the nats of its windows.
    active_flops: a token, with the measured activity.
    codes: the commits that drove its study, one unless it was gone on with after a change.
    """

    status: Status
    error: str = ""
    bits_per_byte: float | None = None
    run: MeasuredRun | None = None
    active_flops: float = 0.0
    seconds: float = 0.0
    codes: tuple[str, ...] = ()

    def line(self) -> str:
        """The outcome in words."""
        if self.bits_per_byte is None:
            return f"{self.status}: {self.error}"
        return f"{self.bits_per_byte:.4f} {UNIT}, {self.seconds:.0f} s"


class Studies:
    """The studies of one prepared text.

    text: the prepared corpus's hash.
    vocab_size: that its tokenizer turned out to have.
    """

    def __init__(self, store: Store, text: str, vocab_size: int) -> None:
        self.store, self.text, self.vocab_size = store, text, vocab_size

    def find(self, config: StudyConfig) -> StudyRecord | None:
        """The newest study of just this configuration, text and designs; None before there is one.

        Its name and its workers decide no result, and may differ.
        """
        ready = config.with_vocab_size(self.vocab_size)
        designs = {spec.key for _, spec in ready.warm_start_specs()}
        for study in self.store.studies():
            same = is_of(study, ready) and study.facts.corpus.hash == self.text
            # A configuration names presets; what a name stands for may have changed since.
            if same and all(t.key in designs for t in self.store.trials(study.id, stats=False)):
                return study
        return None

    def finish(
        self,
        config: StudyConfig,
        *,
        report: Callable[[str], None],
        listen: Callable[[Turn], None],
        pool_factory: PoolFactory,
    ) -> None:
        """Launch the study or go on with it, until all of its designs have ended.

        report, listen, pool_factory: as in `nas.running.launcher`.
        Raises InputError, WorkFailed and KeyboardInterrupt as that does.
        """
        told: dict[str, Any] = {"report": report, "started": self._note_code, "listen": listen}
        while True:
            study = self.find(config)
            if study is not None and study.state is StudyState.FINISHED:
                return
            try:
                if study is None:
                    launch_study(config, self.store, pool_factory=pool_factory, **told)
                else:
                    resume_study(study, self.store, pool_factory=pool_factory, **told)
                return
            except StudyFailed as error:
                # A search gives up there. A comparison owes a row for every design, and each such
                # ending leaves fewer to train.
                report(f"{error}; going on with the designs that are left")

    def _note_code(self, study: StudyRecord, config: StudyConfig) -> None:
        """Add the commit to those that drove the study."""
        codes = sorted({*study.facts.more.get("codes", ()), commit()})
        self.store.update_study(study.id, facts=Facts(more={"codes": codes}))

    def outcomes(self, config: StudyConfig, names: Sequence[str]) -> dict[str, Outcome]:
        """Those that have ended, in the configuration's order.

        names: by which the warm starts are called here.
        """
        study = self.find(config)
        if study is None:
            return {}
        keys = {t.number: t.key for t in self.store.trials(study.id, stats=False)}
        evaluations = self.store.evaluations(study.id)
        ended = {keys[each.trial]: each for each in evaluations if each.status.final}
        runs = {keys[run.trial]: run for run in self.store.measured_runs(study.id, list(keys))}
        codes = tuple(study.facts.more.get("codes", ()))
        return {
            name: self._outcome(ended[spec.key], runs.get(spec.key), codes)
            for name, (_, spec) in zip(
                names, config.with_vocab_size(self.vocab_size).warm_start_specs(), strict=True
            )
            if spec.key in ended
        }

    def _outcome(
        self, ended: EvaluationRecord, run: MeasuredRun | None, codes: tuple[str, ...]
    ) -> Outcome:
        curve = self.store.curve(ended.id)  # its last point is the end of the training
        return Outcome(
            status=ended.status,
            error=ended.error,
            bits_per_byte=ended.bits_per_byte,
            run=run,
            active_flops=ended.active_flops or 0.0,
            seconds=curve[-1].seconds if curve else 0.0,
            codes=codes,
        )


def is_of(study: StudyRecord, config: StudyConfig) -> bool:
    """Whether a kept study is of this configuration, and of today's form of trainings."""
    stored = _decisive(study.config)
    if config.recipe.precision == "auto":  # it was settled when the study began
        stored["recipe"] = {**stored["recipe"], "precision": "auto"}
    return stored == _decisive(config.to_dict()) and study.facts.training == TRAINING


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """What decides results, as the database keeps it."""
    kept = {key: value for key, value in config.items() if key not in ("name", "workers")}
    return dict(json.loads(json.dumps(kept)))
