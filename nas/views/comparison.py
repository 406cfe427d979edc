"""Whether two trials differ, read from the store: `nas compare` and `Study.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas.search.paired import CONFIDENCE, Measurement, difference
from nas.search.seeds import seed_noise
from nas.store import MeasuredRun, Store, StudyRecord, TrialRecord
from nas.views.copied import Copied, copying_note
from search_space.errors import InputError, require


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two trials, at the level at which they are compared.

    bits_per_byte: the mean over its seeds there.
    seeds: how many.
    copied: in how many of them attention has learnt to copy; None where that was not measured.
    """

    study: str
    trial: int
    design: str
    bits_per_byte: float
    seeds: int
    copied: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two trials differ by, in bits per byte: the first less the second.

    until_flops: training FLOPs up to which both were measured, the most that both were.
    difference: below 0 where the first is better.
    error: its standard error, of which
    windows_error: over windows, those of both taken in pairs where `paired`, and
    seeds_error: over seeds.
    deviation: of one seed; `repeats` of the study stand behind it, beside a prior.
    interval: where the difference lies, at 95%.
    p_better: the probability that the first is better.
    differ: whether the interval leaves out 0.
    trained_apart: in which parts their studies were trained in different ways.
    """

    a: Side
    b: Side
    until_flops: float
    difference: float
    error: float
    windows_error: float
    seeds_error: float
    paired: bool
    deviation: float
    repeats: int
    interval: tuple[float, float]
    p_better: float
    differ: bool
    trained_apart: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The answer in words."""
        same = self.a.study == self.b.study
        first, second = (
            f"trial {side.trial}" + ("" if same else f" of {side.study}")
            for side in (self.a, self.b)
        )
        gap = f"{abs(self.difference):.4f} bits per byte"
        span = f"{CONFIDENCE:.0%} interval {self.interval[0]:+.4f} to {self.interval[1]:+.4f}"
        if self.differ:
            better, worse = (first, second) if self.difference < 0 else (second, first)
            text = f"{better} is better than {worse} by {gap} ({span})"
        else:
            text = f"{first} and {second} are not told apart: they differ by {gap} ({span})"
        if not self.paired:
            text += "; windows were not kept, so this is the error of two independent texts"
        sides = [Copied(each.trial, each.copied, each.seeds) for each in (self.a, self.b)]
        if note := copying_note(sides):
            text += f"; {note}"
        if self.trained_apart:
            text += f"; they were not trained alike: {', '.join(self.trained_apart)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"sentence": self.sentence}


def compare(
    store: Store, study: StudyRecord, a: int, other_study: StudyRecord, b: int
) -> Comparison:
    """Trial `a` of one study against trial `b` of another or the same, at their highest common
    level of training FLOPs.

    Raises InputError for an unknown trial, one that was not measured, the same trial twice, and
    two that no number compares: of other corpora or windows, or without a common level.
    """
    require(
        (study.id, a) != (other_study.id, b),
        f"compare takes two different trials: got {a} of {study.name} twice",
    )
    _require_one_corpus(study, other_study)
    (first, runs), (second, other_runs) = _read(store, study, a), _read(store, other_study, b)
    level = _common_level(runs, other_runs, f"trial {a}", f"trial {b}")
    one, other = (
        Measurement(tuple(run for run in each if run.until_flops == level))
        for each in (runs, other_runs)
    )
    noise = seed_noise(_repeated(store, study, other_study))
    gap = difference(one, other, noise)
    low, high = gap.interval()
    return Comparison(
        a=_side(study, first, one),
        b=_side(other_study, second, other),
        until_flops=level,
        difference=gap.value,
        error=gap.error,
        windows_error=gap.windows_error,
        seeds_error=gap.seeds_error,
        paired=gap.paired,
        deviation=noise.deviation,
        repeats=noise.repeats,
        interval=(low, high),
        p_better=gap.chance_lower,
        differ=low > 0 or high < 0,
        trained_apart=_trained_apart(study, other_study),
    )


def _require_one_corpus(study: StudyRecord, other: StudyRecord) -> None:
    hashes = {study.facts.corpus.hash, other.facts.corpus.hash}
    require(
        len(hashes - {None}) < 2,
        f"studies {study.name!r} and {other.name!r} have different corpora: bits per byte of two "
        "texts do not compare; launch both with the same corpus",
    )
    for name in ("eval_tokens", "seq_len"):
        sizes = [_setting(each, name) for each in (study, other)]
        require(
            sizes[0] == sizes[1],
            f"studies {study.name!r} and {other.name!r} are measured on different windows: "
            f"{name} {sizes[0]} and {sizes[1]}; launch both with the same",
        )


def _setting(study: StudyRecord, name: str) -> Any:
    where = study.config if name == "eval_tokens" else study.config.get("backbone") or {}
    return where.get(name)


def _read(store: Store, study: StudyRecord, number: int) -> tuple[TrialRecord, list[MeasuredRun]]:
    trial = store.trial(study.id, number)
    runs = store.measured_runs(study.id, [number])
    require(
        len(runs) > 0,
        f"trial {number} of study {study.name!r} was not measured: it is {trial.status}; "
        f"see: nas runs {study.name}",
    )
    return trial, runs


def _common_level(
    runs: Sequence[MeasuredRun], others: Sequence[MeasuredRun], name: str, other_name: str
) -> float:
    levels, other_levels = ({run.until_flops for run in each} for each in (runs, others))
    common = levels & other_levels
    if not common:
        shown = [", ".join(f"{flops:.3g}" for flops in sorted(s)) for s in (levels, other_levels)]
        raise InputError(
            f"{name} and {other_name} were never measured after the same training FLOPs: "
            f"{shown[0]} and {shown[1]}; designs compare at a common rung"
        )
    return max(common)


def _repeated(store: Store, study: StudyRecord, other: StudyRecord) -> list[MeasuredRun]:
    """Of both studies; trials of the second are told from the first one's by a negative number."""
    runs = store.repeated_runs(study.id, study.top)
    if other.id == study.id:
        return runs
    more = store.repeated_runs(other.id, other.top)
    return [*runs, *(replace(run, trial=-1 - run.trial) for run in more)]


def _trained_apart(study: StudyRecord, other: StudyRecord) -> tuple[str, ...]:
    compared = ("backbone", "recipe")
    parts = [name for name in compared if study.config.get(name) != other.config.get(name)]
    if study.facts.training != other.facts.training:
        parts.append("the form of training")
    return tuple(parts)


def _side(study: StudyRecord, trial: TrialRecord, measured: Measurement) -> Side:
    return Side(
        study=study.name,
        trial=trial.number,
        design=trial.spec.label,
        bits_per_byte=measured.bits_per_byte,
        seeds=measured.seeds,
        copied=measured.copied,
    )
