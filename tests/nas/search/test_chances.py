"""The probability of being on the frontier, against what repeated studies of known truth show."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from paired_cases import Text

from nas.search.chances import DRAWS, MOST, chances, rivals
from nas.search.objectives import Figures
from nas.search.paired import difference, measurements
from nas.search.pareto import non_dominated
from nas.search.seeds import SeedNoise

NAMES = ["bits_per_byte", "active_flops"]


@dataclass
class Study:
    """Made-up designs: measured, and as they truly are."""

    truth: list[float]
    costs: list[float]
    runs: list

    def figures(self) -> list[Figures]:
        found = measurements(self.runs)
        return [
            Figures(number, {"active_flops": cost}, found[number].bits_per_byte, cost)
            for number, cost in enumerate(self.costs)
        ]


def study(source: random.Random, designs: int, deviation: float, scatter: float) -> Study:
    """Designs along a curve, some above it, with one or two seeds."""
    text, truth, runs = Text(source), [], []
    costs = [1e5 * (1 + source.randrange(2 * designs)) for _ in range(designs)]
    for number, cost in enumerate(costs):
        truth.append(1e3 / cost + source.gauss(0, 0.01))
        seeds = range(1 + number % 2)
        runs += text.design(number, truth[-1], seeds, scatter=scatter, deviation=deviation)
    return Study(truth, costs, runs)


def noise_of(deviation: float) -> SeedNoise:
    """Known for certain, of a hundred trials."""
    return SeedNoise(
        deviation=deviation, own=dict.fromkeys(range(100), (deviation**2, 1000000000.0))
    )


def chances_of(made: Study, noise: SeedNoise):
    found = rivals(made.figures(), NAMES, {}, noise)
    return found, chances(found, measurements(made.runs), noise)


@pytest.mark.parametrize(("deviation", "scatter"), [(0.006, 0.01), (0.002, 0.05)], ids=str)
def test_the_probabilities_are_the_frequencies(deviation: float, scatter: float) -> None:
    """Over many made-up studies: of those given p, a share p truly is on the true frontier.

    The truth of a design is drawn around its measurement as wide as the errors are, so that a flat
    prior holds and the share is p itself.
    """
    source = random.Random(7)
    said: list[float] = []
    so: list[bool] = []
    for _ in range(150):
        made = study(source, 6, deviation, scatter)
        _, known = chances_of(made, noise_of(deviation))
        # Errors of the same kind, of designs that are all alike.
        text, wrong = Text(source), []
        for number in range(len(made.costs)):
            seeds = range(1 + number % 2)
            wrong += text.design(number, 0.0, seeds, scatter=scatter, deviation=deviation)
        errors = measurements(wrong)
        truth = [
            figure.bits_per_byte - errors[figure.number].bits_per_byte for figure in made.figures()
        ]
        on_front = non_dominated(list(zip(truth, made.costs, strict=True)))
        for number, chance in known.items():
            said.append(chance.probability)
            so.append(on_front[number])
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.99)):
        inside = [at for at, p in enumerate(said) if low <= p < high]
        assert len(inside) > 25
        expected = sum(said[at] for at in inside) / len(inside)
        seen = sum(so[at] for at in inside) / len(inside)
        assert seen == pytest.approx(expected, abs=3 * (0.25 / len(inside)) ** 0.5)


def test_of_two_alike_each_is_on_it_half_of_the_time() -> None:
    text, runs = Text(random.Random(0)), []
    for number in (0, 1):
        runs += text.design(number, 0.0, [0], scatter=0.0, deviation=0.0)
    made = Study([0.0, 0.0], [1e5, 1e5], runs)
    _, known = chances_of(made, noise_of(0.01))
    assert known[0].probability == pytest.approx(0.5, abs=0.06)
    assert known[0].probability + known[1].probability == pytest.approx(1, abs=1e-9)


def test_far_ones_are_no_rivals_and_the_cheapest_is_sure() -> None:
    text, runs = Text(random.Random(0)), []
    for number, quality in enumerate((0.0, -0.1, 0.2, -0.099)):
        runs += text.design(number, quality, [0], scatter=0.001, deviation=0.0)
    made = Study([], [1e5, 2e5, 3e5, 4e5], runs)
    found, known = chances_of(made, noise_of(0.002))
    assert found.numbers_K == [0, 1, 3] and found.front == 2
    assert known[0].probability == known[1].probability == 1.0
    assert 0.2 < known[3].probability < 0.5
    assert known[3].cheaper is None and known[3].dearer is None
    assert known[0].cheaper is None and known[1].dearer is None
    number, gap = known[1].cheaper
    both = measurements(runs)
    assert (number, gap) == (0, difference(both[1], both[0], noise_of(0.002)))
    assert known[0].dearer[1].value == pytest.approx(-gap.value)


def test_what_is_common_to_all_windows_decides_nothing() -> None:
    """A better design by a thousandth on every window is surely better, however the text varies."""
    text = Text(random.Random(0), 200)
    runs = [
        *text.design(0, 0.0, range(4), scatter=0.0, deviation=0.0),
        *text.design(1, 0.001, range(4), scatter=0.0, deviation=0.0),
    ]
    _, known = chances_of(Study([], [1e5, 1e5], runs), noise_of(0.0003))
    assert known[0].probability == 1.0
    assert known[1].probability < 0.01


def test_a_common_part_of_the_same_seeds_decides_nothing() -> None:
    text, runs = Text(random.Random(0)), []
    for number, quality in enumerate((0.0, 0.003)):
        runs += text.design(number, quality, range(2), scatter=0.0, deviation=0.0)
    made, own = Study([], [1e5, 1e5], runs), noise_of(0.001).own
    _, apart = chances_of(made, SeedNoise(deviation=0.001, own=own))
    _, common = chances_of(made, SeedNoise(deviation=0.001, own=own, common=0.01**2))
    assert apart[1].probability < 0.05 and common[1].probability < 0.05
    other = [run if run.trial == 0 else replace(run, seed=9 + run.seed) for run in runs]
    _, known = chances_of(
        Study([], [1e5, 1e5], other), SeedNoise(deviation=0.001, own=own, common=0.01**2)
    )
    assert known[1].probability > 0.3


def test_a_crowd_is_cut_to_the_nearest() -> None:
    source, runs = random.Random(3), []
    text = Text(source, 16)
    for number in range(100):
        runs += text.design(number, 0.0001 * number, [0], scatter=0.0, deviation=0.0)
    found, known = chances_of(Study([], [1e5] * 100, runs), noise_of(0.01))
    assert found.numbers_K == list(range(MOST))
    assert sum(chance.probability for chance in known.values()) == pytest.approx(1, abs=1e-9)
    # A count over 1,000 draws, with no rounding of a difference from one.
    assert all(chance.probability == round(chance.probability, 3) for chance in known.values())
    again = chances_of(Study([], [1e5] * 100, runs), noise_of(0.01))[1]
    assert again == known, "the same records give the same figures"


def test_bounds_and_other_objectives() -> None:
    text, runs = Text(random.Random(0)), []
    for number, quality in enumerate((0.0, -0.1)):
        runs += text.design(number, quality, [0], scatter=0.0, deviation=0.0)
    figures = Study([], [1e5, 2e5], runs).figures()
    noise = noise_of(0.01)
    assert rivals(figures, NAMES, {"active_flops": 1.5e5}, noise).numbers_K == [0]
    found = rivals(figures, ["active_flops"], {}, noise)
    known = chances(found, measurements(runs), noise)
    assert {number: chance.probability for number, chance in known.items()} == {0: 1.0}
    assert rivals([], NAMES, {}, noise).numbers_K == [] and DRAWS > 0
    assert chances(rivals([], NAMES, {}, noise), {}, noise) == {}
