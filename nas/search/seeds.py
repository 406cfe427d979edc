"""How far runs of one design lie from each other, and what of it is common to all designs.

A run is x_as = m_a + c_s + e_as: design a, seed s. The runs of a seed read the same text in the
same order and start with the same weights, so that a part c of their luck may be the same. A study
shows whether it is: then it cancels between two designs with the same seeds, else it is left out.
The rest differs in size from design to design; each has its own deviation, shrunk towards that of
all (a scaled inverse chi-squared prior, as in Smyth 2004 for many genes with few arrays).

Dims: A designs, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nas.store.records import MeasuredRun
from nas.store.standing import mean

# What is known of one seed's deviation before any repeat, in bits per byte: that of runs of narrow
# proxies (docs/evidence.md). It counts as so many repeats.
PRIOR_DEVIATION = 0.005
PRIOR_FREEDOM = 4.0
SHARED = 4.0  # repeats that all other designs count as, beside a design's own
# A common part is believed from this ratio of its mean square to what the rest alone would give:
# chance passes it once in fifty with three seeds, more seldom with more.
BELIEVED = 4.0
FEWEST = 4  # designs with repeats, below which a common part cannot be told from their own
ROUNDS = 12  # of the fit; it moves no digit that is shown after half of them
MANY = 200  # designs with repeats, from which on the fit takes whole columns

Values = Mapping[int, Mapping[int, float]]  # trial -> seed -> bits per byte


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """How far runs of a design lie from each other, in bits per byte, at the top rung.

    deviation: of one seed of a design that was not repeated, without the common part.
    common: the variance over seeds of what all designs have in common; 0 where none was found.
    own: by trial, the variance of its own part, and the degrees of freedom behind it.
    repeats: those that were measured.
    """

    deviation: float
    common: float = 0.0
    own: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    repeats: int = 0

    def of(self, trial: int) -> tuple[float, float]:
        """The variance of a trial's own part, and the degrees of freedom behind it."""
        return self.own.get(trial, (self.deviation**2, SHARED))


def seed_noise(runs: Sequence[MeasuredRun]) -> SeedNoise:
    """What repeats say.

    runs: at the top rung, those of several studies too if their trials have different numbers; of
        designs with one run nothing is learnt.
    """
    values: dict[int, dict[int, float]] = {}
    for run in runs:
        values.setdefault(run.trial, {})[run.seed] = run.bits_per_byte
    values = {trial: own for trial, own in values.items() if len(own) > 1}
    repeats = sum(len(own) - 1 for own in values.values())
    if len(values) >= MANY:
        return _of_many(values, repeats)
    freedom = {trial: len(mine) - 1.0 for trial, mine in values.items()}
    deviation, own = _shrunk(_squares(values, {}), freedom)
    noise = SeedNoise(deviation=deviation, own=own, repeats=repeats)
    if len(values) < FEWEST:
        return noise
    return _with_common_part(values, noise)


def _of_many(values: Values, repeats: int) -> SeedNoise:
    """The same fit, for so many designs that numpy's import is soon paid back."""
    from nas.search.seed_fit import Fit

    fit = Fit(values, PRIOR_DEVIATION, PRIOR_FREEDOM, SHARED)
    alone = SeedNoise(deviation=fit.deviation, own=fit.own, repeats=repeats)
    for _ in range(ROUNDS):
        fit.round()
    chance = float((1 / fit.behind_S).mean())
    spread = float((fit.common_S**2).sum()) / (len(fit.common_S) - 1)
    if spread < BELIEVED * chance:
        return alone
    return replace(alone, deviation=fit.deviation, common=spread - chance, own=fit.own)


def _with_common_part(values: Values, alone: SeedNoise) -> SeedNoise:
    """The fit with a part that is common to a seed's runs, if the runs say so; else `alone`."""
    deviation, own = alone.deviation, alone.own
    common: dict[int, float] = {}
    for _ in range(ROUNDS):
        weights = {trial: 1 / own[trial][0] for trial in values}
        behind = _behind(values, weights)
        common = _common(values, weights, behind, common)
        # Of its repeats, a design's share in the common part is used up.
        freedom = {
            trial: (len(mine) - 1) * (1 - mean([weights[trial] / behind[seed] for seed in mine]))
            for trial, mine in values.items()
        }
        deviation, own = _shrunk(_squares(values, common), freedom)
    chance = mean([1 / weight for weight in behind.values()])
    spread = math.fsum(part**2 for part in common.values()) / (len(common) - 1)
    if spread < BELIEVED * chance:
        return alone
    return SeedNoise(deviation=deviation, common=spread - chance, own=own, repeats=alone.repeats)


def _behind(values: Values, weights: Mapping[int, float]) -> dict[int, float]:
    """By seed, the weights of the designs that have it, together."""
    found: dict[int, float] = {}
    for trial, mine in values.items():
        for seed in mine:
            found[seed] = found.get(seed, 0.0) + weights[trial]
    return found


def _common(
    values: Values,
    weights: Mapping[int, float],
    behind: Mapping[int, float],
    before: Mapping[int, float],
) -> dict[int, float]:
    """By seed, the weighted mean over designs of what a run lies above its design's mean.

    behind: as `_behind` has it.
    before: the same of the round before.
    """
    parts = dict.fromkeys(behind, 0.0)
    for trial, mine in values.items():
        middle = mean([value - before.get(seed, 0.0) for seed, value in mine.items()])
        for seed, value in mine.items():
            parts[seed] += weights[trial] * (value - middle) / behind[seed]
    middle = mean(list(parts.values()))
    return {seed: part - middle for seed, part in parts.items()}


def _squares(values: Values, common: Mapping[int, float]) -> dict[int, float]:
    """By trial, the squares around its mean of what is left without the common part."""
    found = {}
    for trial, mine in values.items():
        left = [value - common.get(seed, 0.0) for seed, value in mine.items()]
        middle = mean(left)
        found[trial] = math.fsum((value - middle) ** 2 for value in left)
    return found


def _shrunk(
    squares: Mapping[int, float], freedom: Mapping[int, float]
) -> tuple[float, dict[int, tuple[float, float]]]:
    """The deviation of all, and by trial its variance and degrees of freedom."""
    whole = PRIOR_FREEDOM * PRIOR_DEVIATION**2 + math.fsum(squares.values())
    variance = whole / (PRIOR_FREEDOM + math.fsum(freedom.values()))
    own = {
        trial: ((SHARED * variance + squares[trial]) / (SHARED + mine), SHARED + mine)
        for trial, mine in freedom.items()
    }
    return math.sqrt(variance), own
