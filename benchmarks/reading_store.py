"""A made-up study of thousands of trials, written straight into a store's tables."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from itertools import count, islice
from typing import Any

from sqlalchemy import insert

from nas.config import StudyConfig
from nas.store import Store, StudyRecord
from nas.store.models import CurvePointRow, LedgerEntryRow, ResultRow, TrialRow
from nas.store.outage import now
from search_space.contract import Status
from search_space.cost import model_cost
from search_space.errors import SpecError
from search_space.spec import FFNSpec

NAME = "reading"
TRIAL_FLOPS = 1e12
ROUTING = 64  # figures a layer that a routed trial keeps among its stats


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


def configuration(trials: int) -> StudyConfig:
    """The study: the default space, one bound that most designs keep."""
    budget = {"trials": trials + 100, "trial_flops": TRIAL_FLOPS}
    return StudyConfig.from_dict(
        {"name": NAME, "budget": budget, "constraints": {"active_flops": 4.0}}
    )


def fill(store: Store, trials: int, points: int) -> StudyRecord:
    """A running study with `trials` different finished trials of `points` curve points each."""
    config = configuration(trials)
    study = store.create_study(
        NAME, config.to_dict(), 0, config.budget.total_flops, list(config.objectives)
    )
    store.update_study(study.id, facts={"ngram_bits_per_byte": {"3": 2.9, "5": 2.4}})
    source = random.Random(0)
    designs = list(islice(_designs(config, source), trials))
    rows = [
        _rows(number, spec, params, config, source, points)
        for number, (spec, params) in enumerate(designs)
    ]
    with store._sessions.begin() as session:
        began = now()
        for number, (trial, result, _) in enumerate(rows):
            trial |= {"study_id": study.id, "created_at": began + timedelta(seconds=number)}
            trial |= {"ended_at": began + timedelta(seconds=number + 60)}
            result |= {"trial_id": number + 1}
        session.execute(insert(TrialRow), [trial for trial, _, _ in rows])
        session.execute(insert(ResultRow), [result for _, result, _ in rows])
        session.execute(insert(CurvePointRow), [p for *_, curve in rows for p in curve])
        session.execute(insert(LedgerEntryRow), list(_ledger(study.id, trials)))
        session.connection().exec_driver_sql(f"UPDATE study SET n_trials = {trials}")
    return store.study(NAME)


def _designs(config: StudyConfig, source: random.Random) -> Any:
    seen = set()
    for _ in count():
        trial = RandomTrial(source)
        try:
            spec = config.space.suggest(trial, config.backbone)
        except SpecError:
            continue
        if spec.key not in seen:
            seen.add(spec.key)
            yield spec, trial.params


def _rows(
    number: int,
    spec: FFNSpec,
    params: Mapping[str, Any],
    config: StudyConfig,
    source: random.Random,
    points: int,
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    cost = model_cost(spec, config.backbone)
    bits = 4 - 0.1 * cost.active_params**0.1 + source.gauss(0, 0.05)
    layers = config.backbone.n_layers
    loads = [[source.random() for _ in range(ROUTING)] for _ in range(layers)]
    trial = {
        "number": number,
        "spec": spec.to_dict(),
        "key": spec.key,
        "params": dict(params),
        "seed": 0,
        "source": "tpe",
        "train_flops": TRIAL_FLOPS,
        "cost": asdict(cost),
        "status": Status.FINISHED.value,
    }
    result = {
        "error": "",
        "bits_per_byte": bits,
        "bits_per_byte_se": 0.01,
        "loss": 3.0,
        "steps": 100,
        "tokens": 10**6,
        "flops": TRIAL_FLOPS,
        "optimizer_flops": 1e10,
        "active_flops": cost.active_flops,
        "activity": [0.5] * layers,
        "stats": {"routing": {"load": loads}},
        "seconds": 60.0,
        "checkpoint": f"nas-runs/{NAME}/trial-{number}",
        "backend": "torch cpu",
    }
    curve = [
        {
            "trial_id": number + 1,
            "step": step,
            "steps": points,
            "flops": TRIAL_FLOPS * step / points,
            "loss": 3 + 4 / step,
            "seconds": 1.5 * step,
        }
        for step in range(1, points + 1)
    ]
    return trial, result, curve


def _ledger(study: int, trials: int) -> Any:
    for number in range(trials):
        line = {"study_id": study, "trial_id": number + 1, "created_at": now()}
        yield line | {"kind": "reserve", "flops": TRIAL_FLOPS}
        yield line | {"kind": "spend", "flops": 0.99 * TRIAL_FLOPS}
        yield line | {"kind": "refund", "flops": 0.01 * TRIAL_FLOPS}
