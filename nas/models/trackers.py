"""Where a training's curve goes besides its own log: TensorBoard, Weights & Biases, MLflow.

They are no dependencies; each is used where it is installed.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_space.errors import InputError

log = logging.getLogger(__name__)


class Tracker(ABC):
    """Takes the numbers of a training at its steps."""

    package: str  # that must be installed

    @abstractmethod
    def __init__(self, name: str, place: Path, settings: Mapping[str, Any]) -> None:
        """Begin. name: of the run. place: a folder for its files. settings: what is trained."""

    @abstractmethod
    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers after a step."""

    @abstractmethod
    def end(self) -> None:
        """Nothing more comes."""


class TensorBoard(Tracker):
    """Event files in the folder `tensorboard`."""

    package = "tensorboard"

    def __init__(self, name: str, place: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(place / "tensorboard"))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Tracker`."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def end(self) -> None:
        """As `Tracker`."""
        self.writer.close()


class WandB(Tracker):
    """A run of the project `ffn-nas`; its login and mode are Weights & Biases' own."""

    package = "wandb"

    def __init__(self, name: str, place: Path, settings: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        # A training that goes on in its folder goes on in its run.
        own = hashlib.sha256(str(place).encode()).hexdigest()[:16]
        options = {"project": "ffn-nas", "name": name, "dir": str(place), "id": own}
        self.run = wandb.init(config=dict(settings), resume="allow", **options)

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Tracker`."""
        self.run.log(dict(numbers), step=step)

    def end(self) -> None:
        """As `Tracker`."""
        self.run.finish()


class MLflow(Tracker):
    """A run of the experiment `ffn-nas`; where it goes is MLflow's own setting."""

    package = "mlflow"

    def __init__(self, name: str, place: Path, settings: Mapping[str, Any]) -> None:
        self.mlflow: Any = importlib.import_module("mlflow")
        self.mlflow.set_experiment("ffn-nas")
        self.mlflow.start_run(run_name=name)
        self.mlflow.log_params(dict(settings))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Tracker`."""
        self.mlflow.log_metrics(dict(numbers), step=step)

    def end(self) -> None:
        """As `Tracker`."""
        self.mlflow.end_run()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def check_installed(names: Sequence[str]) -> None:
    """Raise InputError for a tracker whose package is not installed."""
    for name in names:
        package = TRACKERS[name].package
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(
                f"--track {name} needs the package {package}, which is not installed: pip install "
                f"{package}, or leave it out; {'log.jsonl'} has the same numbers"
            ) from None


class Tracking:
    """All trackers of a training; one that fails costs a warning, never the training."""

    def __init__(
        self, names: Sequence[str], run: str, place: Path, settings: Mapping[str, Any]
    ) -> None:
        """Raises InputError where one cannot begin."""
        self.trackers: dict[str, Tracker] = {}
        for name in names:
            try:
                self.trackers[name] = TRACKERS[name](run, place, settings)
            except Exception as error:  # of another's library: no login, no server, no folder
                raise InputError(f"--track {name} could not begin: {error}; leave it out") from None

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers after a step."""
        for name in list(self.trackers):
            self._do(name, lambda tracker: tracker.add(step, numbers))

    def end(self) -> None:
        """Nothing more comes."""
        for name in list(self.trackers):
            self._do(name, lambda tracker: tracker.end())

    def _do(self, name: str, action: Any) -> None:
        try:
            action(self.trackers[name])
        except Exception as error:  # as above; a lost connection must not end a training
            log.warning("%s failed and gets nothing more: %s", name, error)
            del self.trackers[name]
