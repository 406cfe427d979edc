"""A study in a few numbers, counted in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dashboard.data.reading import Reading
from nas.search.pareto import hypervolume
from nas.views.copied import Copied, copying_note
from search_space.contract import FAILURES


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The study in a few numbers.

    finished: designs that were measured at the top rung.
    infeasible: designs that break a bound as measured.
    paused, stopped, failed: designs.
    running: evaluations.
    best: bits per byte of the best design, the mean over best_seeds seeds.
    best_noise: see `nas.views.noise`.
    ngram: (order, bits per byte) of the best n-gram baseline.
    hypervolume: share of the box up to the worst values, in [0, 1).
    copying: see `nas.views.copied.copying_note`, of the frontier.
    """

    finished: int
    infeasible: int
    paused: int
    running: int
    stopped: int
    failed: int
    spent: float
    budget: float
    best: float | None
    best_noise: float | None
    best_seeds: int
    ngram: tuple[str, float] | None
    frontier: int
    hypervolume: float
    copying: str


def headline(reading: Reading) -> Headline:
    """Count and compare the study's trials."""
    trials = reading.trials
    counts = trials["status"].value_counts()
    broken = trials["infeasible"].astype(str) != ""
    quality = trials.loc[(trials["status"] == "finished") & ~broken, "bits_per_byte"].dropna()
    winner: Any = None if quality.empty else trials.loc[quality.astype(float).idxmin()]  # type: ignore[call-overload]
    noise = None if winner is None else winner["noise"]
    return Headline(
        finished=int(counts.get("finished", 0)),
        infeasible=int(broken.sum()),
        paused=int(counts.get("paused", 0)),
        running=len(reading.running),
        stopped=int(counts.get("stopped", 0)),
        failed=sum(int(counts.get(status.value, 0)) for status in FAILURES),
        spent=reading.ledger.spent,
        budget=reading.ledger.budget,
        best=None if winner is None else float(winner["bits_per_byte"]),
        best_noise=None if noise is None or noise != noise else float(noise),
        best_seeds=0 if winner is None else int(winner["seeds"]),
        ngram=reading.study.facts.best_ngram,
        frontier=int(trials["frontier"].sum()),
        hypervolume=_share(reading),
        copying=_copying(reading),
    )


def _copying(reading: Reading) -> str:
    front = reading.trials["frontier"].astype(bool)
    seeds = reading.trials.loc[front, "seeds"]
    known = [number for number in reading.chances if number in seeds.index]
    return copying_note(
        [Copied(n, reading.chances[n].copied, int(seeds.loc[n])) for n in sorted(known)]
    )


def _share(reading: Reading) -> float:
    """`nas.search.pareto.hypervolume_share`; what the frontier dominates is all that is."""
    trials, names = reading.trials, list(reading.study.objectives)
    kept = trials[(trials["status"] == "finished") & (trials["infeasible"].astype(str) == "")]
    values = kept[names].astype(float).dropna()
    front = values[kept.loc[values.index, "frontier"].astype(bool)]
    if front.empty:
        return 0.0
    shares = front / values.max()
    return hypervolume(shares.to_numpy().tolist(), [1.0] * len(names))
