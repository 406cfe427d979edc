"""A study from Python: what the commands do, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.process import interrupts
from nas.search.bounds import limits
from nas.search.chances import Chance
from nas.search.pareto import best, frontier
from nas.store import EvaluationRecord, Ledger, Store, StudyRecord, StudyState, TrialRecord
from nas.views.certainty import frontier_chances
from nas.views.comparison import Comparison, compare
from nas.views.trial_rows import data_frame, run_row
from search_space.backbone import Backbone
from search_space.errors import InputError, shown
from search_space.places import DEFAULT_DB

if TYPE_CHECKING:
    from pandas import DataFrame

    from nas.config import StudyConfig
    from nas.models.scaled import Scaled
    from search_space.native import DType, Form


class Study:
    """One study in a database. Data frames have a row a trial, or a row an evaluation.

    record: as it was when the study was opened, or last changed from here.
    """

    def __init__(self, store: Store, record: StudyRecord, url: str | None = None) -> None:
        """url: of the database, for a store that only reads; what writes opens it anew."""
        self.store, self.record, self._url = store, record, url

    @classmethod
    def open(cls, name: str | None = None, db: str = DEFAULT_DB) -> Study:
        """The study of that name, the newest without one. InputError when there is none."""
        store = Store.open(db, create=False)
        try:
            return cls(store, store.study(name), db)
        except BaseException:
            store.close()  # or SQLite's files beside the database stay
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()

    @property
    def name(self) -> str:
        """The study's name in its database."""
        return self.record.name

    @property
    def backbone(self) -> Backbone:
        """The proxy's shape."""
        return Backbone.from_dict(self.record.config.get("backbone") or {})

    @property
    def resumable(self) -> bool:
        """Whether it can be resumed: it is not finished, and this version trains as its own did."""
        from nas.running.resumption import is_of_this_version

        return self.record.state is not StudyState.FINISHED and is_of_this_version(self.record)

    def stop(self) -> None:
        """Have the study stopped wherever it runs, and wait until it has; it can be resumed.

        Raises InputError when it does not run, WorkFailed when its driver does not stop in time.
        """
        from nas.running.resumption import stop_study

        with self._writer() as (store, record):
            self.record = stop_study(record, store)

    def extend(self, flops: float, trials: int | None = None) -> None:
        """Give the study `flops` more training FLOPs, so that it can be resumed.

        trials: designs that it may try in all; without one they grow as the FLOPs do. Raises
        InputError when it is held, of another version, or the numbers make no sense.
        """
        from nas.running.resumption import extend_study

        with self._writer() as (store, record):
            self.record = extend_study(record, store, flops, trials)

    @contextmanager
    def _writer(self) -> Iterator[tuple[Store, StudyRecord]]:
        """A store that can write, and the study as it stands."""
        with interrupts.listening(), interrupts.held():
            if self._url is None:
                yield self.store, self.store.study(self.name)
                return
            with Store.open(self._url) as store:
                yield store, store.study(self.name)

    def evaluations(self) -> list[EvaluationRecord]:
        """The evaluations as the store has them, in the order in which they began."""
        return self.store.evaluations(self.record.id)

    def runs(self) -> DataFrame:
        """Every evaluation: a trial's training with one seed, as it was brought to one rung."""
        import pandas as pd

        return pd.DataFrame([run_row(each) for each in self.evaluations()])

    def records(self, *, stats: bool = True) -> list[TrialRecord]:
        """The trials as the store has them; without `stats`, their results' are left empty."""
        return self.store.trials(self.record.id, stats=stats)

    def limits(self) -> dict[str, float]:
        """Upper bounds by objective, in FLOPs a token and parameters."""
        return limits(self.record)

    def ledger(self) -> Ledger:
        """FLOPs budgeted, reserved and spent."""
        return self.store.ledger(self.record.id)

    def trials(self) -> DataFrame:
        """Every trial: number, status, design, measures, costs and the bounds that it breaks."""
        return data_frame(self.records(stats=False), self.limits())

    def frontier(self, objectives: Sequence[str] | None = None) -> DataFrame:
        """The non-dominated feasible trials under the study's objectives, or the given ones."""
        return data_frame(self.frontier_records(objectives), self.limits())

    def frontier_records(self, objectives: Sequence[str] | None = None) -> list[TrialRecord]:
        """`frontier` as the store has it, without stats."""
        names = objectives or self.record.objectives
        front = frontier(self.store.measures(self.record.id), names, self.limits())
        numbers = [trial.number for trial in front]
        found = {trial.number: trial for trial in self.store.some_trials(self.record.id, numbers)}
        return [found[number] for number in numbers]

    def chances(self) -> dict[int, Chance]:
        """By number, how likely the trials on the frontier and near it are on it, and what parts
        those on it from their neighbours."""
        return frontier_chances(
            self.store, self.record, self.store.measures(self.record.id), self.limits()
        )

    def compare(self, a: int | str, b: int | str) -> Comparison:
        """Whether two trials differ, at the most training FLOPs that both were measured at.

        a, b: numbers of this study's trials, or "STUDY:NUMBER" for those of another study of the
            same database, corpus and validation windows.
        Raises InputError for an unknown or unmeasured trial, and for two that do not compare.
        """
        (study, number), (other, other_number) = self._named(a), self._named(b)
        return compare(self.store, study, number, other, other_number)

    def _named(self, trial: int | str) -> tuple[StudyRecord, int]:
        name, colon, number = str(trial).rpartition(":")
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise InputError(f"a trial is a number, or STUDY:NUMBER: got {shown(trial)}")
        return self.store.study(name) if colon else self.record, int(number)

    def best(self) -> TrialRecord:
        """The feasible trial of lowest bits per byte. InputError when there is none."""
        trials = self.store.measures(self.record.id)
        found = best(trials, self.limits())
        if found is None:
            any_finished = best(trials) is not None
            what = "finished trial that keeps its constraints" if any_finished else "finished trial"
            see = f"nas pareto --all {self.name}" if any_finished else f"nas status {self.name}"
            raise InputError(f"study {self.name!r} has no {what}; see: {see}")
        return self.store.trial(self.record.id, found.number)

    def export(
        self,
        folder: str | Path,
        trial: int | None = None,
        *,
        form: Form = "auto",
        dtype: DType = "float32",
        verify: bool = True,
    ) -> Path:
        """Write a trial (the best one by default) as a transformers model directory.

        dtype: of the weights.

        form: `native`, one of transformers' own classes, InputError where none computes the same;
            `custom`, the code that trained; `auto`, native where there is one.
        """
        from nas.models.checkpoints import find_checkpoint
        from nas.models.export import export_form, export_trial
        from nas.models.found import found
        from nas.models.new_folder import check_target

        chosen = self.best() if trial is None else self.store.trial(self.record.id, trial)
        check_target(Path(folder))  # before a checkpoint of any size is read
        export_form(chosen.spec, self.backbone, form)
        checkpoint = find_checkpoint(self.store, self.record, chosen)
        return export_trial(
            checkpoint,
            self.record,
            chosen,
            folder,
            known=found(self.store, self.record, chosen),
            form=form,
            dtype=dtype,
            verify=verify,
        )

    def export_scaled(
        self,
        folder: str | Path,
        backbone: Mapping[str, Any],
        trial: int | None = None,
        **options: Any,
    ) -> Scaled:
        """Write the design of a trial, the best one by default, at another size, initialised anew.

        backbone: fields of the study's backbone with their new values, such as {"d_model": 1024}.
        options go to `nas.models.scale.export_scaled` (tokenizer, seed, verify).
        """
        from nas.models.scale import export_scaled

        chosen = self.best() if trial is None else self.store.trial(self.record.id, trial)
        return export_scaled(self.store, self.record, chosen, backbone, folder, **options)


def launch(
    config: StudyConfig | Mapping[str, Any] | str | Path, db: str = DEFAULT_DB, **options: Any
) -> Study:
    """Run a study to its end. config: a StudyConfig, its plain data, or the path of its YAML.

    options go to `nas.running.launcher.launch_study` (name, report, started, listen, pool_factory).
    """
    from nas.config import StudyConfig
    from nas.running.launcher import launch_study

    if isinstance(config, (str, Path)):
        config = StudyConfig.load(config)
    elif not isinstance(config, StudyConfig):
        config = StudyConfig.from_dict(config)
    with interrupts.listening(), interrupts.held():
        store = Store.open(db)
        try:
            return Study(store, launch_study(config, store, **options))
        except BaseException:
            store.discard_if_unused()
            store.close()
            raise


def resume(name: str | None = None, db: str = DEFAULT_DB, **options: Any) -> Study:
    """Go on with the study of that name, the newest without one, to its end.

    options go to `nas.running.launcher.resume_study` (report, started, listen, pool_factory).
    Raises InputError, and changes nothing, when there is nothing to go on with.
    """
    from nas.running.launcher import resume_study

    with interrupts.listening(), interrupts.held():
        store, record = _open_to_change(name, db)
        try:
            return Study(store, resume_study(record, store, **options))
        except BaseException:
            store.close()
            raise


def _open_to_change(name: str | None, db: str) -> tuple[Store, StudyRecord]:
    """A store that writes, and the study of that name in it, or the newest.

    Raises InputError, and makes and upgrades nothing, when the database or the study is not there.
    """
    # A reader makes no file and no tables, so a wrong name changes nothing.
    with Study.open(name, db) as found:
        name = found.name
    store = Store.open(db)
    try:
        return store, store.study(name)
    except BaseException:
        store.close()
        raise
