"""A study from Python: what the commands do, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import interrupts
from nas.checkpoints import find_checkpoint
from nas.config import StudyConfig
from nas.export import export_trial
from nas.new_folder import check_target
from nas.objectives import OBJECTIVES
from nas.pareto import best, frontier
from nas.store import Ledger, Store, StudyRecord, TrialRecord
from search_space.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

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

    def records(self) -> list[TrialRecord]:
        """The trials as the store has them."""
        return self.store.trials(self.record.id)

    def ledger(self) -> Ledger:
        """FLOPs budgeted, reserved and spent."""
        return self.store.ledger(self.record.id)

    def trials(self) -> DataFrame:
        """Every trial: number, status, design, measures and costs."""
        return data_frame(self.records())

    def frontier(self, objectives: Sequence[str] | None = None) -> DataFrame:
        """The non-dominated trials under the study's objectives, or the given ones."""
        return data_frame(frontier(self.records(), objectives or self.record.objectives))

    def best(self) -> TrialRecord:
        """The finished trial of lowest bits per byte. InputError when none finished."""
        found = best(self.records())
        if found is None:
            raise InputError(
                f"study {self.name!r} has no finished trial; see: nas status {self.name}"
            )
        return found

    def export(self, folder: str | Path, trial: int | None = None, *, verify: bool = True) -> Path:
        """Write a trial (the best one by default) as a transformers model directory."""
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


def trial_row(trial: TrialRecord) -> dict[str, Any]:
    """One trial as flat plain data: the row of every table, data frame and --json."""
    result = trial.result
    row: dict[str, Any] = {
        "number": trial.number,
        "status": trial.status.value,
        "method": trial.spec.method,
        "design": trial.spec.label,
        "source": trial.source,
        "bits_per_byte_se": result.bits_per_byte_se if result else None,
        "seconds": result.seconds if result else None,
        "error": result.error if result else "",
    }
    values = {name: objective.value(trial) for name, objective in OBJECTIVES.items()}
    return row | values | {"spec": trial.spec.to_dict()}


def data_frame(trials: Sequence[TrialRecord]) -> DataFrame:
    """`trial_row` of each trial as a pandas data frame."""
    import pandas as pd

    return pd.DataFrame([trial_row(trial) for trial in trials])
