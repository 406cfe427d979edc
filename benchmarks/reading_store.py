"""A made-up study of thousands of trials over its rungs, written straight into a store's tables.

As asynchronous halving leaves it: every third trial, say, goes on from each rung, and every eighth
of those at the top has a second seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import count, islice
from typing import Any

from sqlalchemy import insert, update

from nas.config import StudyConfig
from nas.store import Facts, Store, StudyRecord
from nas.store.models import (
    CurvePointRow,
    EvaluationRow,
    LedgerEntryRow,
    RunRow,
    StudyRow,
    TrialRow,
)
from nas.store.outage import now
from nas.store.windows import packed
from search_space.contract import Status
from search_space.cost import model_cost
from search_space.errors import SpecError
from search_space.space import suggest
from search_space.spec import FFNSpec

NAME = "reading"
TRIAL_FLOPS = 2e13  # the lowest rung is then some 100 steps
DECAY = 0.3
DEVIATION = 0.01  # of a seed, in bits per byte
WINDOWS, WINDOW_BYTES = 512, 300
ROUTING = 64  # figures a layer that a routed trial keeps among its stats
BATCH = 2_000  # trials that are written together: their rows are some 30 MB


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a study's trials are spread over its rungs.

    reduction: of so many trials, one goes on from a rung.
    repeated: of so many trials at the top, one has a second seed.
    """

    rungs: int = 3
    reduction: int = 3
    repeated: int = 8


HALVING = Shape()
TWO_EACH = Shape(rungs=4, reduction=2, repeated=1)  # twice as many evaluations as trials


class RandomTrial:
    """Answers `SearchSpace.suggest` at random and keeps what it answered."""

    def __init__(self, source: random.Random) -> None:
        self.source, self.params = source, dict[str, Any]()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return self.params.setdefault(name, self.source.choice(list(choices)))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in the range; `log` makes no difference to what a store holds."""
        return float(self.params.setdefault(name, self.source.uniform(low, high)))


def configuration(trials: int, shape: Shape = HALVING) -> StudyConfig:
    """The study: the default space, one bound that most designs keep."""
    budget = {"trials": trials + 100, "trial_flops": TRIAL_FLOPS}
    budget |= {"rungs": shape.rungs, "reduction": shape.reduction}
    return StudyConfig.from_dict(
        {"name": NAME, "budget": budget, "constraints": {"active_flops": 4.0}}
    )


def fill(store: Store, trials: int, points: int, shape: Shape = HALVING) -> StudyRecord:
    """A running study of `trials` different designs; each evaluation has `points` curve points."""
    config = configuration(trials, shape)
    study = store.create_study(
        NAME, config.to_dict(), 0, config.total_flops, list(config.objectives), rungs=shape.rungs
    )
    store.update_study(study.id, facts=Facts(ngram_bits_per_byte={"3": 2.9, "5": 2.4}))
    source, spent = random.Random(0), 0.0
    rows = _Rows(study, config, shape, source, points)
    designs = enumerate(islice(_designs(config, source), trials))
    while batch := list(islice(designs, BATCH)):
        for number, (spec, params) in batch:
            rows.add(number, spec, params)
        spent += sum(each["flops"] for each in rows.evaluations)
        with store._sessions.begin() as session:
            for table, values in rows.taken():
                session.execute(insert(table), values)
    with store._sessions.begin() as session:
        known = {"n_trials": trials, "deviation": DEVIATION, "spent_flops": spent}
        session.execute(update(StudyRow).where(StudyRow.id == study.id).values(known))
    return store.study(NAME)


def _designs(
    config: StudyConfig, source: random.Random
) -> Iterator[tuple[FFNSpec, dict[str, Any]]]:
    seen = set()
    for _ in count():
        trial = RandomTrial(source)
        try:
            spec = suggest(config.space, trial, config.backbone)
        except SpecError:
            continue
        if spec.key not in seen:
            seen.add(spec.key)
            yield spec, trial.params


class _Rows:
    """The rows of every table, trial by trial. Ids count from 1."""

    def __init__(
        self,
        study: StudyRecord,
        config: StudyConfig,
        shape: Shape,
        source: random.Random,
        points: int,
    ) -> None:
        self.study, self.config, self.shape, self.points = study, config, shape, points
        self.source = source
        self.began = now()
        self.levels = config.plan().levels
        self.begun = {"run": 0, "evaluation": 0}  # how many there are, with those written before
        self._empty()

    def _empty(self) -> None:
        self.trials: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.curves: list[dict[str, Any]] = []
        self.ledger: list[dict[str, Any]] = []

    def taken(self) -> list[tuple[Any, list[dict[str, Any]]]]:
        """Each table with its new rows, in an order that keeps every reference; none are left."""
        found: list[tuple[Any, list[dict[str, Any]]]] = [
            (TrialRow, self.trials),
            (RunRow, self.runs),
            (EvaluationRow, self.evaluations),
            (CurvePointRow, self.curves),
            (LedgerEntryRow, self.ledger),
        ]
        self._empty()
        return found

    def add(self, number: int, spec: FFNSpec, params: Mapping[str, Any]) -> None:
        """One design as far as it came, with all that hangs on it."""
        cost = model_cost(spec, self.config.backbone)
        quality = 4 - 0.1 * cost.active_params**0.1 + self.source.gauss(0, 0.05)
        shape = self.shape
        reached = sum(number % shape.reduction**rung == 0 for rung in range(1, shape.rungs))
        at = self.began + timedelta(seconds=number)
        before = len(self.evaluations)
        self._run(number, 0, range(reached + 1), quality, cost.active_flops, at)
        shown = self.begun["evaluation"]
        if number % (shape.reduction ** (shape.rungs - 1) * shape.repeated) == 0:
            last = range(shape.rungs - 1, shape.rungs)
            self._run(number, 1, last, quality, cost.active_flops, at)
        own = self.evaluations[before:]
        measured = [each["bits_per_byte"] for each in own if each["rung"] == reached]
        top = reached == shape.rungs - 1
        self.trials.append(
            {
                "study_id": self.study.id,
                "number": number,
                "spec": spec.to_dict(),
                "key": spec.key,
                "params": dict(params),
                "source": "tpe",
                "cost": asdict(cost),
                "status": (Status.FINISHED if top else Status.PAUSED).value,
                "rung": reached,
                "seeds": len(measured),
                "bits_per_byte": sum(measured) / len(measured),
                "active_flops": cost.active_flops,
                "flops": sum(each["flops"] for each in own),
                "evaluation_id": shown,
                "created_at": at,
                "ended_at": at + timedelta(seconds=60),
            }
        )

    def _run(
        self,
        number: int,
        seed: int,
        rungs: range,
        quality: float,
        active_flops: float,
        at: datetime,
    ) -> None:
        self.runs.append({"trial_id": number + 1, "seed": seed, "created_at": at})
        self.begun["run"] += 1
        start = 0.0
        for rung in rungs:
            bits = quality + 0.3 * (self.shape.rungs - 1 - rung) + self.source.gauss(0, DEVIATION)
            self._evaluation(number, rung, start, bits, active_flops, at)
            start = (1 - DECAY) * self.levels[rung]

    def _evaluation(
        self,
        number: int,
        rung: int,
        start: float,
        bits: float,
        active_flops: float,
        at: datetime,
    ) -> None:
        self.begun["evaluation"] += 1
        id, until = self.begun["evaluation"], self.levels[rung]
        layers = self.config.backbone.n_layers
        loads = [[self.source.random() for _ in range(ROUTING)] for _ in range(layers)]
        self.evaluations.append(
            _ENDED
            | {
                "study_id": self.study.id,
                "run_id": self.begun["run"],
                "rung": rung,
                "until_flops": until,
                "start_flops": start,
                "created_at": at,
                "ended_at": at + timedelta(seconds=60),
                "bits_per_byte": bits,
                "windows": self._windows(bits),
                "flops": until - start,
                "trunk_flops": (1 - DECAY) * until,
                "active_flops": active_flops,
                "activity": [0.5] * layers,
                "stats": {"routing": {"load": loads}},
                "checkpoint": f"nas-runs/{NAME}/trial-{number}",
            }
        )
        self.curves += [
            {
                "evaluation_id": id,
                "step": step,
                "steps": self.points,
                "flops": start + (until - start) * step / self.points,
                "loss": 3 + 4 / step,
                "seconds": 1.5 * step,
            }
            for step in range(1, self.points + 1)
        ]
        line = {"study_id": self.study.id, "evaluation_id": id, "created_at": at}
        for kind, share in (("reserve", 1.0), ("spend", 1.0), ("refund", 0.0)):
            self.ledger.append(line | {"kind": kind, "flops": share * (until - start)})

    def _windows(self, bits: float) -> bytes:
        """Nats of as many windows as the default `eval_tokens` has, which differ by design."""
        shares = [self.source.gauss(1, 0.02) for _ in range(WINDOWS)]
        scale = bits * math.log(2) * WINDOWS * WINDOW_BYTES / sum(shares)
        return packed([scale * share for share in shares])


_ENDED = {  # what all evaluations have in common
    "attempt": 1,
    "losses": 0,
    "owner": "",
    "lease_until": 0.0,
    "status": Status.FINISHED.value,
    "reserved": 0.0,
    "error": "",
    "bits_per_byte_se": 0.01,
    "loss": 3.0,
    "steps": 100,
    "tokens": 10**6,
    "optimizer_flops": 1e10,
    "seconds": 60.0,
    "backend": "torch cpu",
}
