"""What a comparison of the published designs found: its rows, and a document's table.

A difference to dense is paired over windows, and has the error of `nas compare` (docs/evidence.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import mean, variance

import numpy as np

from benchmarks.preset_comparison import Comparison, Outcomes
from benchmarks.preset_studies import UNIT
from benchmarks.report import Row, at_least
from nas.search.paired import CONFIDENCE, Difference, Measurement, difference
from nas.search.seeds import SeedNoise, seed_noise
from nas.store.records import MeasuredRun
from search_space.contract import Status
from search_space.cost import model_cost


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One design over the seeds that finished.

    bits: their mean bits per byte.
    deviation: of one seed, shrunk towards that of all designs.
    active_flops: a token, with the measured activity.
    active_share: the same over that of the dense design; None where no seed of dense finished.
    seconds: of one training, the mean.
    from_dense: bits per byte less dense's; None of dense itself, and where there is no dense.
    """

    preset: str
    seeds: int
    bits: float
    deviation: float
    active_flops: float
    active_share: float | None
    total_params: int
    seconds: float
    from_dense: Difference | None


def summaries(comparison: Comparison, outcomes: Outcomes) -> list[Summary]:
    """The designs of which a seed finished, the best first."""
    measured, noise = measurements(comparison, outcomes)
    baseline = comparison.baseline
    ended = {
        preset: [outcomes[preset, run.seed] for run in own.runs] for preset, own in measured.items()
    }
    active = {preset: mean(each.active_flops for each in own) for preset, own in ended.items()}
    dense, out = measured.get(baseline), []
    for preset, own in measured.items():
        gap = difference(own, dense, noise) if dense is not None and own is not dense else None
        out.append(
            Summary(
                preset=preset,
                seeds=own.seeds,
                bits=own.bits_per_byte,
                deviation=math.sqrt(noise.of(own.number)[0]),
                active_flops=active[preset],
                active_share=active[preset] / active[baseline] if dense is not None else None,
                total_params=model_cost(comparison.spec(preset), comparison.backbone).total_params,
                seconds=mean(each.seconds for each in ended[preset]),
                from_dense=gap,
            )
        )
    return sorted(out, key=lambda summary: summary.bits)


def measurements(
    comparison: Comparison, outcomes: Outcomes
) -> tuple[dict[str, Measurement], SeedNoise]:
    """The designs over the seeds that finished, and how far seeds lie from each other."""
    runs: dict[str, list[MeasuredRun]] = {}
    for number, preset in enumerate(comparison.presets):
        for seed in comparison.seeds:
            outcome = outcomes.get((preset, seed))
            if outcome is not None and outcome.run is not None:
                # A study numbers its own trials, and has one seed.
                own = replace(outcome.run, trial=number, seed=seed)
                runs.setdefault(preset, []).append(own)
    noise = seed_noise([run for own in runs.values() for run in own])
    return {preset: Measurement(tuple(own)) for preset, own in runs.items()}, noise


def rows(comparison: Comparison, outcomes: Outcomes) -> list[Row]:
    """The designs' rows, the best first; a row a failed trial; whether all trials finished."""
    out = []
    for summary in summaries(comparison, outcomes):
        name = summary.preset
        out.append(Row(f"{name}: mean, n = {summary.seeds}", summary.bits, UNIT))
        out.append(Row(f"{name}: deviation of one seed", summary.deviation, UNIT))
        out.append(Row(f"{name}: active FLOPs", summary.active_flops, "FLOPs a token"))
        out.append(Row(f"{name}: parameters", float(summary.total_params)))
        out.append(Row(f"{name}: training", summary.seconds, "s a trial"))
        if summary.from_dense is not None:
            out.append(Row(f"{name}: from {comparison.baseline}", summary.from_dense.value, UNIT))
            ends = zip(("low", "high"), summary.from_dense.interval(), strict=True)
            gap = f"{name}: from {comparison.baseline}, {CONFIDENCE:.0%}"
            out += [Row(f"{gap} {end}", value, UNIT) for end, value in ends]
    out += seed_rows(comparison, outcomes)
    failed = {key: o for key, o in outcomes.items() if o.status is not Status.FINISHED}
    for (preset, seed), outcome in failed.items():
        out.append(Row(f"{preset}, seed {seed}", outcome.line(), "", "finishes", False))
    codes = {code for outcome in outcomes.values() for code in outcome.codes}
    out.append(Row("versions of the code that trained them", float(len(codes))))
    asked = len(comparison.presets) * len(comparison.seeds)
    out.append(at_least("trials finished", float(len(outcomes) - len(failed)), asked, "trials"))
    return out


def seed_rows(comparison: Comparison, outcomes: Outcomes) -> list[Row]:
    """Whether some designs depend more on the seed than others, which few seeds hardly show: the
    largest of many deviations is large by chance alone. Nothing is shrunk here.
    """
    runs = [own.runs for own in measurements(comparison, outcomes)[0].values()]
    bits = [[run.bits_per_byte for run in own] for own in runs if len(own) > 1]
    if not bits:
        return []
    variances, freedoms = np.array([variance(own) for own in bits]), [len(own) - 1 for own in bits]
    pooled = float(np.average(variances, weights=freedoms)) ** 0.5
    drawn = np.random.default_rng(0).chisquare(freedoms, (100_000, len(bits))) / freedoms
    by_chance = pooled * float(np.median(drawn.max(axis=1))) ** 0.5
    return [
        Row(f"deviation of one seed, pooled, n = {sum(freedoms)} repeats", pooled, UNIT),
        Row("the largest of a design's own", float(variances.max()) ** 0.5, UNIT),
        Row("the largest by chance, median, where all designs have the pooled", by_chance, UNIT),
    ]


def markdown(comparison: Comparison, outcomes: Outcomes) -> str:
    """The designs as a markdown table, the best first, with what failed below it."""
    head = (
        "design",
        f"{UNIT}, mean",
        f"from {comparison.baseline}, {CONFIDENCE:.0%} interval",
        "a seed's deviation",
        "seeds",
        f"active FLOPs, of {comparison.baseline}'s",
        "parameters",
        "training, s",
    )
    lines = [head, ("---",) * len(head)]
    for s in summaries(comparison, outcomes):
        lines.append(
            (
                s.preset,
                f"{s.bits:.4f}",
                "" if s.from_dense is None else _words(s.from_dense),
                f"{s.deviation:.4f}",
                str(s.seeds),
                "" if s.active_share is None else f"{s.active_share:.2f}",
                f"{s.total_params / 1e6:.2f} M",
                f"{s.seconds:.0f}",
            )
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    failed = [
        f"- {preset}, seed {seed}: {outcome.line()}"
        for (preset, seed), outcome in outcomes.items()
        if outcome.status is not Status.FINISHED
    ]
    return "\n".join([table, *([""] if failed else []), *failed])


def _words(gap: Difference) -> str:
    low, high = gap.interval()
    return f"{gap.value:+.4f} ({low:+.4f} to {high:+.4f})"
