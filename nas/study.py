"""A study from Python: what the commands do, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import interrupts
from nas.bounds import excess, limits, words
from nas.objectives import OBJECTIVES
from nas.pareto import NO_BOUNDS, best, frontier
from nas.store import Ledger, Store, StudyRecord, TrialRecord
from search_space.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

    from nas.config import StudyConfig

DEFAULT_DB = "sqlite:///nas.db"


class Study:
    """One study in a database. Data frames have a row a trial."""

    def __init__(self, store: Store, record: StudyRecord) -> None:
        self.store, self.record = store, record

    @classmethod
    def open(cls, name: str | None = None, db: str = DEFAULT_DB) -> Study:
        """The study of that name, the newest without one. InputError when there is none."""
        store = Store.open(db, create=False)
        try:
            return cls(store, store.study(name))
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

    def export(self, folder: str | Path, trial: int | None = None, *, verify: bool = True) -> Path:
        """Write a trial (the best one by default) as a transformers model directory."""
        from nas.checkpoints import find_checkpoint
        from nas.export import export_trial
        from nas.new_folder import check_target

        chosen = self.best() if trial is None else self.store.trial(self.record.id, trial)
        check_target(Path(folder))  # before a checkpoint of any size is read
        checkpoint = find_checkpoint(self.store, self.record, chosen)
        return export_trial(checkpoint, self.record, chosen, folder, verify=verify)


def launch(
    config: StudyConfig | Mapping[str, Any] | str | Path, db: str = DEFAULT_DB, **options: Any
) -> Study:
    """Run a study to its end. config: a StudyConfig, its plain data, or the path of its YAML.

    options go to `nas.launcher.launch_study` (name, report, started, listen, pool_factory).
    """
    from nas.config import StudyConfig
    from nas.launcher import launch_study

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


def trial_row(trial: TrialRecord, bounds: Mapping[str, float] = NO_BOUNDS) -> dict[str, Any]:
    """One trial as flat plain data: the row of every table, data frame and --json.

    Its `violations` are `nas.bounds.excess` of the study's bounds, {} for a feasible trial;
    `infeasible` says the same in words.
    """
    result, over = trial.result, excess(trial, bounds)
    row: dict[str, Any] = {
        "number": trial.number,
        "status": trial.status.value,
        "method": trial.spec.method,
        "design": trial.spec.label,
        "source": trial.source,
        "bits_per_byte_se": result.bits_per_byte_se if result else None,
        "seconds": result.seconds if result else None,
        "error": result.error if result else "",
        "infeasible": words(over),
    }
    values = {name: objective.value(trial) for name, objective in OBJECTIVES.items()}
    return row | values | {"spec": trial.spec.to_dict(), "violations": over}


def data_frame(trials: Sequence[TrialRecord], bounds: Mapping[str, float] = NO_BOUNDS) -> DataFrame:
    """`trial_row` of each trial as a pandas data frame."""
    import pandas as pd

    return pd.DataFrame([trial_row(trial, bounds) for trial in trials])
