"""What a study costs beside its trainings: a driver in simulated time, with a thousand workers.

`python -m benchmarks.driver --json FILE` takes about ten minutes on an idle machine;
`python -m benchmarks.driver --trials 3000 --workers 100` one. Times are of the CPU.
Designs are drawn, so that the sampler's asks are left out; these are measured by themselves.
"""

from __future__ import annotations

import contextlib
import cProfile
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
from typing import Any, NamedTuple

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
MOST_MORE = 1.05  # the same of the calls of functions, which no machine changes
MARK = 100  # evaluations between two readings of the clock; fewer in a small study
COUNTED = 10  # one stretch in so many has its calls counted


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


class Mark(NamedTuple):
    """Where a watched study stood.

    ended: evaluations that had ended.
    timed: those of them whose time was taken.
    seconds: of CPU that these took.
    machine: of CPU that `machine_work` took, once a mark.
    counted: those whose calls were counted instead.
    calls: of functions, Python's and C's, in these.
    """

    ended: int = 0
    timed: int = 0
    seconds: float = 0.0
    machine: float = 0.0
    counted: int = 0
    calls: int = 0


class Watch:
    """Listens to the driver: what every stretch of so many evaluations took.

    Of each COUNTED stretches, one has its calls of functions counted, which is slow, and so is
    timed apart. A count is the same on every machine; times are not: `machine_work` beside them
    tells how much what else runs on it slowed them.
    """

    def __init__(self, driver: Driver, trials: int) -> None:
        self.driver, self.marks = driver, [Mark()]
        self._stretch = max(1, min(MARK, trials // 20))
        self._ended, self._profile = 0, None
        self._began = self._clock()

    def __call__(self, turn: Turn) -> None:
        self._ended += len(turn.ended)
        last = self.marks[-1]
        n = self._ended - last.ended
        if n < self._stretch:
            return
        if self._profile is None:
            took = self._clock() - self._began
            new = last._replace(timed=last.timed + n, seconds=last.seconds + took)
        else:
            self._profile.disable()
            calls = sum(entry.callcount for entry in self._profile.getstats())
            new = last._replace(counted=last.counted + n, calls=last.calls + calls)
            self._profile = None
        began = time.process_time()
        machine_work()
        machine = last.machine + time.process_time() - began
        self.marks.append(new._replace(ended=self._ended, machine=machine))
        self._began = self._clock()
        if len(self.marks) % COUNTED == 0:
            self._profile = cProfile.Profile()
            self._profile.enable()

    def _clock(self) -> float:
        sampler = self.driver.sampler
        assert isinstance(sampler, DrawnDesigns)
        return time.process_time() - sampler.seconds

    def between(self, first: int, last: float = math.inf) -> tuple[float, float, float]:
        """Milliseconds and calls an evaluation, and the machine's milliseconds a mark, between two
        counts of ended evaluations."""
        inside = [mark for mark in self.marks if first <= mark.ended <= last]
        begin, end = inside[0], inside[-1]
        ms = 1000 * (end.seconds - begin.seconds) / max(1, end.timed - begin.timed)
        calls = (end.calls - begin.calls) / max(1, end.counted - begin.counted)
        return ms, calls, 1000 * (end.machine - begin.machine) / max(1, len(inside) - 1)


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
            watch = Watch(driver, trials)
            driver.run(watch)
            yield from study_rows(store, store.studies()[0], watch)
            yield from ask_rows(driver)
        yield from resume_rows(folder, min(trials, RESUMED), workers)


def study_rows(store: Store, study: StudyRecord, watch: Watch) -> Iterator[Row]:
    """Counts, work an evaluation, its growth, memory."""
    ledger = store.ledger(study.id)
    yield Row("trials", len(watch.driver.trials))
    ended = watch.marks[-1].ended
    yield Row("evaluations", ended)
    yield Row("FLOPs still reserved", ledger.reserved, "FLOPs", "<= 0", ledger.reserved <= 0)
    ms, calls, _ = watch.between(0)
    yield at_most("driver and store, an evaluation", ms, MOST_MS, "ms")
    yield Row("calls of functions, an evaluation", calls)
    settled = min(SETTLED, ended // 3)
    early, early_calls, early_machine = watch.between(settled, 2 * settled)
    late, late_calls, late_machine = watch.between(ended - settled)
    yield at_most(
        "growth of the calls: last part / first part", late_calls / early_calls, MOST_MORE
    )
    yield Row("the first part after it settled", early, "ms")
    yield Row("the last part", late, "ms")
    slower = late_machine / early_machine
    yield Row("the machine meanwhile: the same work, last part / first part", slower)
    yield at_most(
        "growth of the time: last part / first part / the machine",
        late / early / slower,
        MOST_GROWTH,
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
