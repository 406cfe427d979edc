"""What two designs differ by: window by window, and as far as seeds let one say.

All designs of a study are measured on the same windows, most of whose hardness is common. So the
error of a difference has two parts: how it scatters over the windows, and how far a run lies from
another of its design with another seed.

Dims: N windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import mul, sub

from nas.search.seeds import SHARED, SeedNoise
from nas.search.student import below, quantile
from nas.store.records import MeasuredRun
from nas.store.standing import mean
from search_space.errors import InputError, require

CONFIDENCE = 0.95
# Nats a token (workers.training.copying): between runs without, 0.1 at most, and one with, 0.6.
COPIES = 0.25
SAME_TEXT = 1e-5  # relative: windows of one text have the same bytes but for a float32's rounding


@dataclass(frozen=True)
class Measurement:
    """A design at one rung, over its seeds.

    runs: its runs there, one at least.
    """

    runs: tuple[MeasuredRun, ...]

    @cached_property
    def bits_per_byte(self) -> float:
        """The mean over the seeds."""
        return mean([run.bits_per_byte for run in self.runs])

    @property
    def number(self) -> int:
        """The trial's."""
        return self.runs[0].trial

    @property
    def seeds(self) -> int:
        """Runs."""
        return len(self.runs)

    @property
    def copied(self) -> int | None:
        """In how many seeds attention has learnt to copy; None where that was not measured."""
        found = [run.copying for run in self.runs]
        known = [nats for nats in found if nats is not None]
        return sum(nats >= COPIES for nats in known) if len(known) == len(found) else None

    @cached_property
    def own_error(self) -> float:
        """Of the mean, over windows and without a partner: the seeds read the same windows."""
        return mean([run.bits_per_byte_se or 0.0 for run in self.runs])

    @cached_property
    def windows_N(self) -> list[float]:
        """Each window's part of the mean, in bits per byte of the whole text; they add up to it.

        A window's nats over the bytes of all windows: these are the same for every design, so a
        difference of two designs is a sum of differences. [] where a run has no windows.
        """
        parts = []
        for run in self.runs:
            if not run.windows:
                return []
            scale = run.bits_per_byte / math.fsum(run.windows) / len(self.runs)
            parts.append([scale * nats for nats in run.windows])
        return [math.fsum(window) for window in zip(*parts, strict=True)]

    @property
    def text(self) -> tuple[int, float] | None:
        """How many windows it was measured on and their bytes; None without windows."""
        run = self.runs[0]
        if not run.windows:
            return None
        return len(run.windows), math.fsum(run.windows) / math.log(2) / run.bits_per_byte


def measurements(runs: Sequence[MeasuredRun]) -> dict[int, Measurement]:
    """The runs of one rung by their trial.

    Raises InputError for a trial whose runs were measured on different windows.
    """
    by_trial: dict[int, list[MeasuredRun]] = {}
    for run in runs:
        by_trial.setdefault(run.trial, []).append(run)
    found = {number: Measurement(tuple(own)) for number, own in by_trial.items()}
    for number, own in found.items():
        require(
            all(same_text(own, Measurement((run,))) for run in own.runs[1:]),
            f"the runs of trial {number} were measured on different windows: no mean of them "
            "compares",
        )
    return found


def same_text(a: Measurement, b: Measurement) -> bool:
    """Whether both were measured on the same windows, as far as their sizes tell."""
    if a.text is None or b.text is None:
        return True
    (count, size), (other_count, other_size) = a.text, b.text
    return count == other_count and math.isclose(size, other_size, rel_tol=SAME_TEXT)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One design's bits per byte less another's: negative where the first is better.

    value: of the means over seeds.
    windows_error: its standard error over windows.
    seeds_error: the same over seeds.
    freedom: degrees of freedom of the whole error (Welch and Satterthwaite).
    paired: whether the windows of both were there; if not, `windows_error` is that of two texts.
    """

    value: float
    windows_error: float
    seeds_error: float
    freedom: float
    paired: bool

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        return math.hypot(self.windows_error, self.seeds_error)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Where the difference lies with that confidence, in (0, 1)."""
        half = quantile((1 + confidence) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def chance_lower(self) -> float:
        """The probability that the first design is the better one."""
        return below(-self.value / self.error, self.freedom)


def difference(a: Measurement, b: Measurement, noise: SeedNoise) -> Difference:
    """`a` less `b`, two different designs of the same text and FLOPs.

    noise: of one seed of either.
    Raises InputError where the windows differ.
    """
    if not same_text(a, b):
        raise InputError(
            f"the two were measured on different windows: {_words(a)}, and {_words(b)}; only "
            "designs of one corpus and one eval_tokens compare"
        )
    paired = bool(a.windows_N and b.windows_N)
    if paired:
        gaps_N = list(map(sub, a.windows_N, b.windows_N))
        windows, count = windows_error(gaps_N), len(gaps_N)
    else:
        windows, count = math.hypot(a.own_error, b.own_error), 0
    parts = seed_parts(a, b, noise)
    return Difference(
        value=a.bits_per_byte - b.bits_per_byte,
        windows_error=windows,
        seeds_error=math.sqrt(math.fsum(variance for variance, _ in parts)),
        freedom=_freedom([(windows**2, count - 1 if count > 1 else math.inf), *parts]),
        paired=paired,
    )


def windows_error(parts_N: Sequence[float]) -> float:
    """The standard error of a sum of windows' parts, as if they were drawn from a longer text."""
    count = len(parts_N)
    middle = math.fsum(parts_N) / count
    gaps_N = [part - middle for part in parts_N]
    return math.sqrt(math.fsum(map(mul, gaps_N, gaps_N)) * count / max(1, count - 1))


def seed_parts(a: Measurement, b: Measurement, noise: SeedNoise) -> list[tuple[float, float]]:
    """The parts of a difference's variance over seeds, each with its degrees of freedom."""
    parts = []
    for each in (a, b):
        variance, freedom = noise.of(each.number)
        parts.append((variance / each.seeds, freedom))
    both = len({run.seed for run in a.runs} & {run.seed for run in b.runs})
    left = 1 / a.seeds + 1 / b.seeds - 2 * both / (a.seeds * b.seeds)
    if noise.common and left > 0:
        parts.append((noise.common * left, SHARED))
    return parts


def _freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Of a sum of independent variances, each with its degrees of freedom."""
    whole = math.fsum(variance for variance, _ in parts)
    squares = math.fsum(variance**2 / freedom for variance, freedom in parts)
    return whole**2 / squares if squares else math.inf


def _words(measured: Measurement) -> str:
    assert measured.text is not None
    return f"{measured.text[0]} of {measured.text[1]:,.0f} bytes"
