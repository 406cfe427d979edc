"""What a study costs beside its trainings: a driver in simulated time, with a thousand workers.

`python -m benchmarks.driver --json FILE` takes about ten minutes on an idle machine;
`python -m benchmarks.driver --trials 3000 --workers 100` one. Times are of the CPU.
Designs are drawn, so that the sampler's asks are left out; these are measured by themselves.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Row, at_least, at_most, parser, publish
from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.driver import Driver
from nas.running.pool import Event
from nas.running.resumption import take
from nas.running.turn import Turn
from nas.search.lessons import Lessons
from nas.search.sampler import Proposal, Sampler, Told
from nas.store import Store, StudyRecord, StudyState
from search_space.contract import EvalRequest, EvalResult, Progress, Status
from search_space.errors import SpecError
from search_space.space import params_of, suggest
from search_space.space.walk import Draw

TRIALS, WORKERS, RUNGS, REDUCTION = 30_000, 1_000, 6, 1.28
MOST_MS, MOST_ASK_S, MOST_BYTES, MOST_RESUME_S = 5.0, 0.3, 2**30, 5.0
RESUMED = 10_000  # trials of the study that is resumed
SETTLED = 10_000  # evaluations after which nothing may grow
MOST_GROWTH = 1.25  # last part's time over that of the part after SETTLED: these machines are noisy
ASKS = 5
MARK = 100  # evaluations between two readings of the clock


def configuration(trials: int) -> StudyConfig:
    """Many rungs that most designs pass, so that a trial has more than three evaluations."""
    return StudyConfig.from_dict(
        {
            "name": "driver",
            "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
            "budget": {
                "trials": trials,
                "trial_flops": 1e13,
                "rungs": RUNGS,
                "reduction": REDUCTION,
                "repeats": {"share": 0.05, "seeds": 3},
            },
        }
    )


class Untold(Lessons):
    """Keeps what it learns, and tells nothing: that is a part of an ask."""

    def told(self) -> list[Told]:
        """Nothing."""
        return []


class Endless(Draw):
    """Draws ranges, too, so that no number of designs uses the space up."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Any number of the range."""
        return self._random.uniform(low, high)


class DrawnDesigns(Sampler):
    """Designs by chance, in place of an ask; counts the seconds of CPU that they take."""

    seconds = 0.0

    def propose(self, number: int, trials: Any, tried: Any = frozenset()) -> Proposal:
        """The first drawn design that was not tried."""
        began = time.process_time()
        draw = Endless(number)
        while True:
            try:
                spec = suggest(self.space, draw, self.backbone)
            except SpecError:
                continue
            if spec.key not in tried:
                break
        params = params_of(self.space, spec, self.backbone)
        self.seconds += time.process_time() - began
        return Proposal(spec=spec, params=params, source="drawn", refused=0)


def work(request: EvalRequest) -> tuple[float, list[Event]]:
    """An evaluation of random length and quality, with one point of its curve."""
    draw = random.Random(f"{request.number}/{request.seed}/{request.rung}")
    flops = request.until_flops - request.start_flops
    mine: dict[str, Any] = {"evaluation": request.evaluation, "attempt": request.attempt}
    half = request.start_flops + flops / 2
    point = Progress(**mine, step=request.rung, steps=9, flops=half, loss=3.0, seconds=1.0)
    quality = random.Random(request.number).gauss(2, 0.1) - 0.2 * math.log(request.until_flops)
    result = EvalResult(
        **mine,
        status=Status.FINISHED,
        bits_per_byte=9 + quality + draw.gauss(0, 0.02),
        bits_per_byte_se=0.01,
        windows=[1.0] * 512,
        flops=0.99 * flops,
        trunk_flops=0.7 * request.until_flops,
        stats={"routing": {}},
    )
    return draw.expovariate(1.0) * flops, [point, result]


def machine_work() -> None:
    """The same work every time, of the kind that a driver does: rows, JSON, small objects."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table t (a integer, b text)")
        for i in range(100):
            text = json.dumps({str(j): i * j for j in range(10)})
            database.execute("insert into t values (?, ?)", (i, text))
        assert len([json.loads(b) for _, b in database.execute("select a, b from t")]) == 100


class Watch:
    """Listens to the driver: the clock when each MARK of evaluations had ended.

    Beside it stands the clock of `machine_work`, once a MARK: what else runs on a machine makes
    both slower, and the store's growth only one.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver, self.ended, self._machine = driver, 0, 0.0
        self.marks = [(0, self._clock(), 0.0)]

    def __call__(self, turn: Turn) -> None:
        self.ended += len(turn.ended)
        if self.ended >= self.marks[-1][0] + MARK:
            began = time.process_time()
            machine_work()
            self._machine += time.process_time() - began
            self.marks.append((self.ended, self._clock(), self._machine))

    def _clock(self) -> float:
        sampler = self.driver.sampler
        assert isinstance(sampler, DrawnDesigns)
        return time.process_time() - sampler.seconds - self._machine

    def milliseconds(self, first: int, last: float = math.inf) -> tuple[float, float]:
        """Mean work an evaluation, and of the machine, between two counts of ended ones."""
        inside = [mark for mark in self.marks if first <= mark[0] <= last]
        (count, began, before), (end, ended, after) = inside[0], inside[-1]
        n = max(1, end - count)
        return 1000 * (ended - began) / n, 1000 * (after - before) / n


def begun_study(store: Store, config: StudyConfig) -> StudyRecord:
    """A study that was created and not driven yet."""
    return store.create_study(
        config.name,
        config.to_dict(),
        config.seed,
        config.total_flops,
        list(config.objectives),
        rungs=config.budget.rungs,
    )


def open_driver(store: Store, config: StudyConfig, pool: SimulatedPool, folder: Path) -> Driver:
    """A driver on the only study, with drawn designs."""
    found = store.studies()
    study = found[0] if found else begun_study(store, config)
    driver = Driver(store, study, config, pool, "", folder, take(study, store))
    driver.sampler.__class__, driver.lessons.__class__ = DrawnDesigns, Untold
    return driver


def rows(trials: int, workers: int) -> Iterator[Row]:
    """Run the study and measure it; then its asks, and a study of `RESUMED` trials resumed."""
    with tempfile.TemporaryDirectory(prefix="driver-") as name:
        folder = Path(name)
        config = configuration(trials)
        with Store.open(f"sqlite:///{folder}/nas.db") as store:
            driver = open_driver(store, config, SimulatedPool(workers, work), folder)
            watch = Watch(driver)
            driver.run(watch)
            yield from study_rows(store, store.studies()[0], watch)
            yield from ask_rows(driver)
        yield from resume_rows(folder, min(trials, RESUMED), workers)


def study_rows(store: Store, study: StudyRecord, watch: Watch) -> Iterator[Row]:
    """Counts, work an evaluation, its growth, memory."""
    ledger = store.ledger(study.id)
    yield Row("trials", len(watch.driver.trials))
    yield Row("evaluations", watch.ended)
    yield Row("FLOPs still reserved", ledger.reserved, "FLOPs", "<= 0", ledger.reserved <= 0)
    yield at_most("driver and store, an evaluation", watch.milliseconds(0)[0], MOST_MS, "ms")
    settled = min(SETTLED, watch.ended // 3)
    early, machine_early = watch.milliseconds(settled, 2 * settled)
    late, machine_late = watch.milliseconds(watch.ended - settled)
    yield Row("the first part after it settled", early, "ms")
    yield Row("the last part", late, "ms")
    slower = machine_late / machine_early
    yield Row("the machine meanwhile: the same work, last part / first part", slower)
    yield at_most(
        "growth: last part / first part / the machine", late / early / slower, MOST_GROWTH
    )
    yield at_most("memory at its peak", _resident(), MOST_BYTES, "bytes")


def ask_rows(driver: Driver) -> Iterator[Row]:
    """A real ask at the end of the study."""
    driver.sampler.__class__, driver.lessons.__class__ = Sampler, Lessons
    took = []
    for ask in range(ASKS):
        began = time.process_time()
        number = len(driver.trials) + ask
        driver.sampler.propose(number, driver.lessons.told(), driver.lessons.keys)
        took.append(time.process_time() - began)
    yield Row("first ask of a driver", took[0], "s")
    yield at_most("an ask after it", sorted(took[1:])[len(took[1:]) // 2], MOST_ASK_S, "s")


def resume_rows(folder: Path, trials: int, workers: int) -> Iterator[Row]:
    """From a study that was left in its middle to the first evaluation that is handed out."""

    class Left(Exception):
        pass

    def leave(turn: Turn) -> None:
        if len(turn.trials) >= trials:
            raise Left

    config = configuration(trials + 1000)
    with Store.open(f"sqlite:///{folder}/resumed.db") as store:
        with contextlib.suppress(Left):
            driver = open_driver(store, config, SimulatedPool(workers, work), folder)
            driver.run(leave)
        store.release(driver.hold, StudyState.STOPPED)
        began, waited = time.process_time(), time.perf_counter()
        driver = open_driver(store, config, SimulatedPool(1, work), folder)
        driver._fill()
        took, waited = time.process_time() - began, time.perf_counter() - waited
        yield at_least("trials of the study that is resumed", len(driver.trials), trials)
        yield at_most("resuming it", took, MOST_RESUME_S, "s")
        yield Row("resuming it, by the clock on the wall", waited, "s")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=TRIALS)
    arguments.add_argument("--workers", type=int, default=WORKERS)
    options = arguments.parse_args()
    sys.exit(publish(rows(options.trials, options.workers), options.json))


if __name__ == "__main__":
    main()
