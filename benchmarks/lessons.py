"""What the sampler should be told of trials at different rungs, on simulated studies.

`python -m benchmarks.lessons --studies DIR --json FILE`. DIR has the database that
`python -m benchmarks.rungs --folder DIR` leaves. A landscape is fitted to all that was measured
there: by rung a ridge regression of bits per byte on a design's features, and what it leaves,
parted into an effect of the design and the noise of a seed. Studies with rungs are then run in
simulated time on that landscape with each rule, and the true hypervolume of what reached the top
is compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from benchmarks.driver import begun_study
from benchmarks.report import Row, parser, publish
from benchmarks.rungs import reference_point
from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.driver import Driver
from nas.running.pool import Event
from nas.running.resumption import take
from nas.search.lessons import Lessons
from nas.search.pareto import hypervolume
from nas.search.sampler import STARTUP_TRIALS, Told
from nas.store import Store
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, EvalResult, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
SEEDS, WORKERS, RIDGE = 20, 2, 1.0


def features(spec: FFNSpec, backbone: Backbone) -> list[float]:
    """What a landscape knows of a design: its method and activation, and the logs of its sizes."""
    cost = model_cost(spec, backbone)
    words = (spec.method, spec.activation, f"gated {spec.gated}", f"depth {spec.depth}")
    known = ("dense", "topk", "hash", "straight_through", "gelu", "relu", "silu", "gated True",
             "depth 2")  # fmt: skip
    sizes = [math.log(cost.active_flops), math.log(cost.total_params), math.log(spec.n_experts)]
    method = [size * (spec.method == name) for name in known[:4] for size in sizes[:2]]
    return [1.0, *(float(name in words) for name in known), *sizes, *method]


class Landscape:
    """Bits per byte of any design at any rung, as the recorded studies had them.

    noise: the standard deviation of one seed at the top.
    share: by rung, how much of what the regression leaves there is the design's own, which stays
    with it at every rung: a correlation, in [0, 1].
    """

    def __init__(
        self,
        found: Sequence[tuple[FFNSpec, dict[int, float]]],
        backbone: Backbone,
        noise: float,
    ) -> None:
        self.backbone = backbone
        self.rungs = sorted({rung for _, by_rung in found for rung in by_rung})
        x_NF = np.array([features(spec, backbone) for spec, _ in found])
        self._mean, self._scale = x_NF.mean(0), x_NF.std(0) + 1e-9
        self._mean[0], self._scale[0] = 0.0, 1.0
        self._weights, self.spread, left = {}, {}, dict[int, dict[int, float]]()
        for rung in self.rungs:
            rows = [i for i, (_, by_rung) in enumerate(found) if rung in by_rung]
            y_N = np.array([found[i][1][rung] for i in rows])
            z_NF = (x_NF[rows] - self._mean) / self._scale
            ridge = RIDGE * np.eye(z_NF.shape[1])
            ridge[0, 0] = 0.0
            self._weights[rung] = np.linalg.solve(z_NF.T @ z_NF + ridge, z_NF.T @ y_N)
            errors = y_N - z_NF @ self._weights[rung]
            self.spread[rung] = float(errors.std())
            left[rung] = dict(zip(rows, map(float, errors), strict=True))
        top = self.rungs[-1]
        own = math.sqrt(max(0.01, 1 - (noise / self.spread[top]) ** 2))
        self.share = {
            rung: min(1.0, self._correlation(left[rung], left[top]) / own) for rung in self.rungs
        }
        self.share[top] = own

    @staticmethod
    def _correlation(first: dict[int, float], second: dict[int, float]) -> float:
        both = sorted(first.keys() & second.keys())
        pairs = np.array([[first[i] for i in both], [second[i] for i in both]])
        return float(np.clip(np.corrcoef(pairs)[0, 1], 0.0, 1.0))

    def bits(self, spec: FFNSpec, rung: int, noise: random.Random | None = None) -> float:
        """What the design has there; with `noise` as one evaluation would measure it."""
        z_F = (np.array(features(spec, self.backbone)) - self._mean) / self._scale
        own = random.Random(spec.key).gauss(0, 1)
        share = self.share[rung]
        value = float(z_F @ self._weights[rung]) + self.spread[rung] * share * own
        if noise is None:
            return value
        return value + self.spread[rung] * math.sqrt(1 - share**2) * noise.gauss(0, 1)


class HighestRung(Lessons):
    """Tells of one rung alone: the highest with enough results (BOHB, Falkner et al. 2018)."""

    def told(self) -> list[Told]:
        """The trials that were measured there, and the running ones."""
        enough = [r for r in range(self._top + 1) if self._measured_at(r) >= STARTUP_TRIALS]
        rung = max(enough, default=0)
        lessons = [
            self._at(each.told, self._bits[number][rung])
            for number, each in sorted(self._lessons.items())
            if rung in self._bits.get(number, {})
        ]
        return [*lessons, *self._running.values()]

    def _measured_at(self, rung: int) -> int:
        return sum(rung in by_rung for by_rung in self._bits.values())

    def _at(self, told: Told, bits: float) -> Told:
        values = told.values
        if values is not None:
            values = (*values[: self._quality], bits, *values[self._quality + 1 :])
        return dataclasses.replace(told, values=values)


class LowestRung(HighestRung):
    """Tells what all have: their figures of the lowest rung."""

    def _measured_at(self, rung: int) -> int:
        return STARTUP_TRIALS if rung == 0 else 0


class AsMeasured(Lessons):
    """Tells of each trial at its highest rung, not corrected."""

    def corrections(self) -> tuple[float, ...]:
        """None."""
        return (0.0,) * (self._top + 1)


RULES: dict[str, type[Lessons]] = {
    "all, corrected": Lessons,
    "all, as measured": AsMeasured,
    "the highest rung with 16 results": HighestRung,
    "the lowest rung": LowestRung,
}


def simulated(
    config: StudyConfig, landscape: Landscape, rule: type[Lessons]
) -> list[tuple[float, float]]:
    """One study in simulated time: of what reached the top, (true bits per byte, log FLOPs)."""

    def work(request: EvalRequest) -> tuple[float, list[Event]]:
        noise = random.Random(f"{request.number}/{request.seed}/{request.rung}")
        flops = request.until_flops - request.start_flops
        result = EvalResult(
            evaluation=request.evaluation,
            attempt=request.attempt,
            status=Status.FINISHED,
            bits_per_byte=landscape.bits(request.spec, request.rung, noise),
            flops=flops,
            trunk_flops=(1 - request.recipe.decay) * request.until_flops,
        )
        return flops, [result]

    with tempfile.TemporaryDirectory() as name, Store.open(f"sqlite:///{name}/nas.db") as store:
        study = begun_study(store, config)
        pool = SimulatedPool(WORKERS, work)
        driver = Driver(store, study, config, pool, "", Path(name), take(study, store))
        driver.lessons = rule(driver.plan)
        driver.run()
        top = [trial for trial in store.trials(study.id) if trial.status is Status.FINISHED]
    active = [model_cost(trial.spec, config.backbone).active_flops for trial in top]
    return [
        (landscape.bits(trial.spec, landscape.rungs[-1]), math.log(flops))
        for trial, flops in zip(top, active, strict=True)
    ]


def recorded(folder: Path) -> tuple[list[tuple[FFNSpec, dict[int, float]]], Backbone, float]:
    """Every design that was measured in the recorded studies, by rung, and a seed's deviation."""
    found = dict[str, tuple[FFNSpec, dict[int, float]]]()
    with Store.open(f"sqlite:///{folder.resolve()}/nas.db", create=False) as store:
        studies = store.studies()
        top = max(study.top for study in studies)
        for study in studies:
            specs = {trial.number: trial.spec for trial in store.trials(study.id, stats=False)}
            for each in store.evaluations(study.id):
                if each.bits_per_byte is not None:
                    spec = specs[each.trial]
                    rung = top if study.top == 0 else each.rung
                    found.setdefault(spec.key, (spec, {}))[1].setdefault(rung, each.bits_per_byte)
        backbone = StudyConfig.from_dict(studies[0].config).backbone
    noise = mean([study.deviation for study in studies if study.deviation is not None] or [0.01])
    return list(found.values()), backbone, noise


def rows(folder: Path, seeds: int, rules: Sequence[str] = tuple(RULES)) -> Iterator[Row]:
    """The landscape, then by rule the mean hypervolume and how it differs from the first rule's."""
    found, backbone, noise = recorded(folder)
    landscape = Landscape(found, backbone, noise)
    yield Row("designs measured", len(found))
    yield Row("deviation of a seed at the top", noise, "bits/byte")
    for rung in landscape.rungs:
        yield Row(f"rung {rung}: not explained by features", landscape.spread[rung], "bits/byte")
        yield Row(f"rung {rung}: share of it that is the design's own", landscape.share[rung])
    demo = dataclasses.replace(StudyConfig.load(DEMO), backbone=backbone)
    volumes = {name: list[float]() for name in rules}
    for seed in range(seeds):
        config = dataclasses.replace(demo, seed=seed)
        fronts = {name: simulated(config, landscape, RULES[name]) for name in rules}
        points = [point for front in fronts.values() for point in front]
        reference = reference_point(points)
        for name, front in fronts.items():
            volumes[name].append(hypervolume(front, reference))
    first = volumes[rules[0]]
    for name, values in volumes.items():
        yield Row(f"hypervolume, {name}", mean(values), "bits/byte x log FLOPs")
        if name != rules[0]:
            differences = [a - b for a, b in zip(values, first, strict=True)]
            half = 2 * stdev(differences) / math.sqrt(seeds) if seeds > 1 else math.nan
            yield Row(f"{name} less {rules[0]}", f"{mean(differences):+.4f} ± {half:.4f}")


def main() -> None:
    """The command."""
    arguments: argparse.ArgumentParser = parser(__doc__)
    arguments.add_argument("--studies", type=Path, required=True, metavar="DIR")
    arguments.add_argument("--seeds", type=int, default=SEEDS)
    options = arguments.parse_args()
    sys.exit(publish(rows(options.studies, options.seeds), options.json))


if __name__ == "__main__":
    main()
