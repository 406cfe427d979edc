"""What a comparison of the published designs found: its rows, and a document's table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from benchmarks.preset_comparison import Comparison, Outcomes
from benchmarks.preset_studies import UNIT
from benchmarks.report import Row, at_least
from nas.store.standing import pooled_deviation
from search_space.contract import Status
from search_space.cost import model_cost

BASELINE = "dense"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One design over the seeds that finished.

    bits: their mean bits per byte.
    spread: largest minus smallest; None of a single seed.
    active_flops: a token.
    seconds: of one training, the mean.
    difference: bits per byte from dense over the seeds both have, in pooled standard deviations of
        a seed; None of dense itself, and where there is no dense or no deviation.
    """

    preset: str
    seeds: int
    bits: float
    spread: float | None
    active_flops: float
    total_params: int
    seconds: float
    difference: float | None


def summaries(comparison: Comparison, outcomes: Outcomes) -> list[Summary]:
    """The designs of which a seed finished, the best first."""
    bits: dict[str, dict[int, float]] = {name: {} for name in comparison.presets}
    for (preset, seed), outcome in outcomes.items():
        if outcome.bits_per_byte is not None:
            bits[preset][seed] = outcome.bits_per_byte
    deviation = pooled_deviation(list(values.values()) for values in bits.values())
    baseline = bits.get(BASELINE, {})
    out = []
    for preset, own in bits.items():
        if not own:
            continue
        ended = [outcomes[preset, seed] for seed in own]
        shift = [own[seed] - baseline[seed] for seed in own.keys() & baseline.keys()]
        compared = preset != BASELINE and len(shift) > 0
        out.append(
            Summary(
                preset=preset,
                seeds=len(own),
                bits=mean(own.values()),
                spread=max(own.values()) - min(own.values()) if len(own) > 1 else None,
                active_flops=mean(outcome.active_flops for outcome in ended),
                total_params=model_cost(comparison.spec(preset), comparison.backbone).total_params,
                seconds=mean(outcome.seconds for outcome in ended),
                difference=mean(shift) / deviation if compared and deviation else None,
            )
        )
    return sorted(out, key=lambda summary: summary.bits)


def rows(comparison: Comparison, outcomes: Outcomes) -> list[Row]:
    """The designs' rows, the best first; a row a failed trial; whether all trials finished."""
    out = []
    for summary in summaries(comparison, outcomes):
        name = summary.preset
        out.append(Row(f"{name}: mean, n = {summary.seeds}", summary.bits, UNIT))
        if summary.spread is not None:
            out.append(Row(f"{name}: spread over the seeds", summary.spread, UNIT))
        out.append(Row(f"{name}: active FLOPs", summary.active_flops, "FLOPs a token"))
        out.append(Row(f"{name}: parameters", float(summary.total_params)))
        out.append(Row(f"{name}: training", summary.seconds, "s a trial"))
        if summary.difference is not None:
            label = f"{name}: difference from {BASELINE}"
            out.append(Row(label, summary.difference, "standard deviations of a seed"))
    failed = {key: o for key, o in outcomes.items() if o.status is not Status.FINISHED}
    for (preset, seed), outcome in failed.items():
        out.append(Row(f"{preset}, seed {seed}", outcome.line(), "", "finishes", False))
    codes = {code for outcome in outcomes.values() for code in outcome.codes}
    out.append(Row("versions of the code that trained them", float(len(codes))))
    asked = len(comparison.presets) * len(comparison.seeds)
    out.append(at_least("trials finished", float(len(outcomes) - len(failed)), asked, "trials"))
    return out


def markdown(comparison: Comparison, outcomes: Outcomes) -> str:
    """The designs as a markdown table, the best first, with what failed below it."""
    head = (
        "design",
        f"{UNIT}, mean",
        "spread",
        "seeds",
        f"from {BASELINE}, seed deviations",
        "active FLOPs a token",
        "parameters",
        "training, s",
    )
    lines = [head, ("---",) * len(head)]
    for s in summaries(comparison, outcomes):
        lines.append(
            (
                s.preset,
                f"{s.bits:.4f}",
                "" if s.spread is None else f"{s.spread:.4f}",
                str(s.seeds),
                "" if s.difference is None else f"{s.difference:+.1f}",
                f"{s.active_flops / 1e6:.2f} M",
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
