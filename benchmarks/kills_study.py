"""A real study on a local Ray whose processes are killed, and how far its database says it is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from benchmarks.abuse.processes import Command, last_line
from benchmarks.abuse.ray_machine import ray_of, titled
from benchmarks.abuse.studies import WORDS
from nas.config import StudyConfig

LIMIT_SECONDS = 240.0  # for anything that is waited for, on a busy machine
ACTOR = "ray::TrialActor"
TRIALS = 12
SEEDS = 2  # of studies: designs come again, and so does what they are compared with
CONFIG: dict[str, Any] = {
    "backbone": {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
    "recipe": {"batch_size": 2, "warmup": 10},
    "warm_start": ["dense", "switch"],
    "space": {
        "methods": ["dense", "topk", "hash", "relu_routing"],
        "active_width": [0.5, 1.0],
        "expansion": 2.0,
        "granularity": [1, 2],
        "shared_width": 0.0,
        "output_gate": False,
    },
    "constraints": {"training_flops": 2.0},
    "sampler": "random",
    "budget": {
        "trials": TRIALS,
        "trial_flops": 2.1e9,
        "rungs": 3,
        "reduction": 2,
        "repeats": {"share": 0.25, "seeds": 2},
    },
    "workers": {"count": 2, "threads": 1, "device": "cpu"},
    "eval_tokens": 1024,
}


class Stuck(RuntimeError):
    """Something that was waited for did not come in time; the text says what."""


@dataclass(frozen=True)
class Stand:
    """What the database has of one evaluation."""

    attempt: int
    losses: int
    status: str
    points: int


class Study:
    """One study in `folder`, with the driver that works at it now.

    cache: where all studies prepare the one corpus.
    seed: of the study.
    trials: that it has; 0 for as many as are usual.
    """

    def __init__(
        self, folder: Path, url: str, cache: Path, seed: int, trials: int = TRIALS
    ) -> None:
        self.folder, self.url, self.cache, self.name = folder, url, cache, folder.name
        self.config = CONFIG | {
            "name": self.name,
            "seed": seed,
            "budget": CONFIG["budget"] | {"trials": trials or TRIALS},
            "corpus": {"source": str(write_corpus(cache.parent))},
        }
        StudyConfig.from_dict(self.config)  # what is wrong is told here, not by a driver
        self._engine = create_engine(url, poolclass=NullPool)
        self.driver: Command | None = None

    def start(self) -> None:
        """Launch the study, or go on with it where its database has it."""
        arguments = ["resume", self.name]
        if not self._query("select 1 from study where name = :name"):
            import yaml

            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "study.yaml").write_text(yaml.safe_dump(self.config))
            arguments = ["launch", "study.yaml"]
        self.driver = Command(
            self.folder, *arguments, "--db", self.url, FFN_NAS_CACHE=str(self.cache)
        )

    @property
    def command(self) -> Command:
        """The driver, which was started."""
        assert self.driver is not None
        return self.driver

    def exit_code(self) -> int | None:
        """Of the driver; None while it runs."""
        code: int | None = self.command.process.poll()
        return code

    def said(self) -> str:
        """The driver's last line."""
        return last_line(self.command.text())

    def processes(self, start: str) -> list[Any]:
        """The processes of the driver's Ray whose title begins so."""
        return titled(ray_of(self.command), start)

    def held(self) -> bool:
        """Whether the driver that runs now holds the study."""
        owner = f"process {self.command.process.pid} %"
        return bool(
            self._query("select 1 from study where name = :name and owner like :owner", owner=owner)
        )

    def state(self) -> str:
        """Of the study, in its database."""
        found = self._query("select state from study where name = :name")
        return str(found[0][0]) if found else ""

    def stands(self) -> dict[int, Stand]:
        """Where each evaluation stands, by its id."""
        found = self._query(
            "select e.id, e.attempt, e.losses, e.status, "
            "(select count(*) from curve_point p where p.evaluation_id = e.id) "
            "from evaluation e join study s on s.id = e.study_id where s.name = :name"
        )
        return {id: Stand(*rest) for id, *rest in found}

    def wait(self, condition: Callable[[], bool], what: str, ended: bool = False) -> bool:
        """Until the condition holds; false when the driver ended before.

        ended: whether the end of the driver is what is waited for. Raises Stuck.
        """
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if not ended and self.exit_code() is not None:
                return condition()
            if time.monotonic() > deadline:
                raise Stuck(f"{self.name}: no {what} within {LIMIT_SECONDS:g} s: {self.said()}")
            time.sleep(0.1)
        return True

    def end(self, seconds: float) -> None:
        """Wait for the end of the driver and of all its processes. Raises Stuck."""
        if wrong := self.command.end(seconds):
            raise Stuck(f"{self.name}: {wrong}: {self.said()}")

    def close(self) -> None:
        """End what still runs."""
        if self.driver is not None:
            self.driver.end(0)
        self._engine.dispose()

    def _query(self, statement: str, **values: Any) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(text(statement), {"name": self.name} | values))
        except OperationalError:  # there is no file or no table yet
            return []
        except Exception as error:
            if "UndefinedTable" in str(error):
                return []
            raise


def write_corpus(folder: Path) -> Path:
    """Some text, always the same."""
    file = folder / "corpus.txt"
    if not file.exists():
        draw, words = random.Random(0), WORDS.split()
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(" ".join(draw.choices(words, k=9)) for _ in range(4000)))
    return file
