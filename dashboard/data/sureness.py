"""How sure the frontier is, kept while a study goes on: what did not change is not drawn again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dashboard.data.columns import Block, rows
from dashboard.data.derived import COST, Floats, above_front
from dashboard.data.front import Ints
from nas.search.chances import MOST, REACH, Chance, Rivals, chances, rivals
from nas.search.objectives import Figures
from nas.search.paired import measurements
from nas.search.seeds import SeedNoise, seed_noise
from nas.store import MeasuredRun, Store, StudyRecord
from search_space.contract import Status


class Sureness:
    """`nas.views.certainty.frontier_chances` of a study in columns."""

    def __init__(self) -> None:
        self._repeats: tuple[object, ...] = ()
        self._noise: SeedNoise | None = None
        self._asked: tuple[object, ...] = ()
        self._found: dict[int, Chance] = {}

    def update(
        self,
        store: Store,
        study: StudyRecord,
        evaluations: Block,
        feasible: Block,
        values_NM: Floats,
        front: Ints,
    ) -> dict[int, Chance]:
        """The chances of the trials on the frontier and near it, by number.

        feasible: the trials (N,) that count, with their costs.
        values_NM: their objectives.
        The windows are read of those trials alone, and only when something about them changed.
        """
        top = evaluations["status"] == Status.FINISHED.value
        top &= evaluations["rung"] == study.top
        measured = rows(evaluations, top)
        noise = self._seed_noise(measured)
        found = _rivals(study.objectives, feasible, values_NM, front, noise)
        mine = np.isin(measured["trial"], found.numbers_K)
        own = tuple(measured[name][mine].tobytes() for name in ("id", "bits_per_byte"))
        asked = (found.numbers_K, found.front, found.beaten_by_K, own, noise)
        if asked != self._asked:
            runs = store.measured_runs(study.id, found.numbers_K, study.top)
            self._found = chances(found, measurements(runs), noise)
            self._asked = asked
        return self._found

    def _seed_noise(self, measured: Block) -> SeedNoise:
        """What the repeats say.

        measured: the evaluations that finished at the top rung.
        """
        _, place, counts = np.unique(measured["trial"], return_inverse=True, return_counts=True)
        repeated = rows(measured, counts[place] > 1)
        key = tuple(repeated[name].tobytes() for name in ("id", "bits_per_byte"))
        if self._noise is None or key != self._repeats:
            self._noise, self._repeats = seed_noise(_runs(repeated)), key
        return self._noise


def _runs(evaluations: Block) -> list[MeasuredRun]:
    order = np.lexsort((evaluations["seed"], evaluations["trial"]))
    names = ("trial", "seed", "until_flops", "bits_per_byte", "bits_per_byte_se")
    columns = [evaluations[name][order].tolist() for name in names]
    return [MeasuredRun(*row) for row in zip(*columns, strict=True)]


def _rivals(
    names: Sequence[str], feasible: Block, values_NM: Floats, front: Ints, noise: SeedNoise
) -> Rivals:
    """`nas.search.chances.rivals`, which is asked of the trials alone that it can name."""
    numbers_N = feasible["number"]
    on_front = np.isin(numbers_N, front)
    wanted = on_front.copy()
    if "bits_per_byte" in names and len(front):
        over = above_front(values_NM, values_NM[on_front], list(names).index("bits_per_byte"))
        near = np.flatnonzero(~on_front & (over <= REACH * noise.deviation))
        wanted[near[np.lexsort((numbers_N[near], over[near]))][:MOST]] = True
    return rivals(_figures(rows(feasible, wanted)), names, {}, noise)


def _figures(trials: Block) -> list[Figures]:
    """The trials as `rivals` reads them."""
    costs = [name for name in trials if name.startswith(COST)]
    found = []
    for at, number in enumerate(trials["number"].tolist()):
        active, cost = (
            trials["active_flops"][at],
            {n.removeprefix(COST): trials[n][at] for n in costs},
        )
        found.append(
            Figures(
                number=number,
                cost={name: float(value) for name, value in cost.items() if not np.isnan(value)},
                bits_per_byte=float(trials["bits_per_byte"][at]),
                active_flops=None if np.isnan(active) else float(active),
            )
        )
    return found
