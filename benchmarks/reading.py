"""How long reading a large study takes: the commands, and a sampler's ask.

python -m benchmarks.reading --json reading.json                # 3,000 trials; about a minute
python -m benchmarks.reading --trials 200

What its pages cost is measured by `benchmarks.dashboard`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.reading_store import NAME, configuration, fill
from benchmarks.report import Row, at_most, parser, publish
from nas.search.lessons import lessons
from nas.search.sampler import Sampler
from nas.store import Store

TRIALS, POINTS = 3_000, 40
COMMANDS = (["list"], ["status", NAME], ["pareto", NAME])
COMMAND_S, ASK_S = 0.6, 0.3
TIMES = 5
NAS = [sys.executable, "-c", "from nas.command.cli import main; main()"]


def rows(trials: int, times: int = TIMES) -> Iterator[Row]:
    """Build the study in a temporary folder and measure each reader of it, `times` times."""
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        file = Path(folder) / "nas.db"
        with Store.open(f"sqlite:///{file}") as store:
            fill(store, trials, POINTS)
        yield Row("trials over three rungs, with 40 curve points a rung", trials)
        yield from command_rows(f"sqlite:///{file}", times)
        yield from ask_rows(f"sqlite:///{file}", trials, times)


def command_rows(url: str, times: int) -> Iterator[Row]:
    """The wall clock of whole processes, and of one that only imports SQLAlchemy."""
    floor = [sys.executable, "-c", "import sqlalchemy.orm"]
    yield Row("start of Python with SQLAlchemy", _seconds(floor, times), "s")
    for words in COMMANDS:
        yield at_most(
            f"nas {words[0]}", _seconds([*NAS, *words, "--db", url], times), COMMAND_S, "s"
        )
    everything = [*NAS, "pareto", NAME, "--all", "--db", url]
    yield Row("nas pareto --all", _seconds(everything, times), "s")


def ask_rows(url: str, trials: int, times: int) -> Iterator[Row]:
    """The next design of a driver that has run the study, and of one that has just begun."""
    config = configuration(trials)
    sampler = Sampler(
        space=config.space,
        backbone=config.backbone,
        objectives=config.objectives,
        constraints=config.constraints,
        seed=config.seed,
    )
    with Store.open(url, create=False) as store:
        study = store.study(NAME)
        records, evaluations = store.trials(study.id, stats=False), store.evaluations(study.id)
    known = len(records) - times
    before = [each for each in evaluations if each.trial < known]
    learnt, took = lessons(config.plan(), records[:known], before), []
    for ask in range(times + 1):
        began = time.perf_counter()
        sampler.propose(trials + ask, learnt.told(), learnt.keys)
        took.append(time.perf_counter() - began)
        for record in records[known + ask : known + ask + 1]:  # what ends until the next
            learnt.put(record)
    yield Row("first ask of a driver", took[0], "s")
    yield at_most("an ask after it", median(took[1:]), ASK_S, "s")


def _seconds(command: list[str], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        took.append(time.perf_counter() - began)
    return median(took)


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--trials", type=int, default=TRIALS)
    options = command.parse_args()
    sys.exit(publish(rows(options.trials), options.json))
