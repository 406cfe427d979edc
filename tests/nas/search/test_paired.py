"""Differences of designs and their errors, on made-up windows and seeds of known truth."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import median

import pytest
from depth import leading
from paired_cases import Text, run

from nas.search.paired import Measurement, difference, measurements
from nas.search.seeds import PRIOR_DEVIATION, PRIOR_FREEDOM, SeedNoise, seed_noise
from nas.search.student import quantile
from search_space.errors import InputError

pytestmark = pytest.mark.slow

DESIGNS, SEEDS, TABLES = 14, 3, 30
SURE = SeedNoise(deviation=1e-9)


def table(source: random.Random, deviation: float, scatter: float, seeds: int = SEEDS):
    """The qualities of fourteen designs, and their measurements with the first and fresh seeds."""
    text = Text(source)
    qualities = [source.gauss(0, 0.02) for _ in range(DESIGNS)]
    runs = []
    for number, quality in enumerate(qualities):
        runs += text.design(number, quality, range(seeds), scatter=scatter, deviation=deviation)
    return qualities, runs


def pairs() -> list[tuple[int, int]]:
    return [(a, b) for a in range(DESIGNS) for b in range(a)]


@pytest.mark.parametrize(
    ("deviation", "scatter"), leading([(0.006, 0.02), (0.002, 0.05), (0.02, 0.001)], 1), ids=str
)
def test_the_interval_covers_the_truth_as_often_as_it_says(
    deviation: float, scatter: float
) -> None:
    """The truth is the difference over all texts and seeds. Tables of 91 pairs."""
    source, covered, asked = random.Random(1), 0, 0
    for _ in range(TABLES):
        qualities, runs = table(source, deviation, scatter)
        found, noise = measurements(runs), seed_noise(runs)
        for a, b in pairs():
            low, high = difference(found[a], found[b], noise).interval()
            covered += low <= qualities[a] - qualities[b] <= high
            asked += 1
    assert 0.90 <= covered / asked <= 0.98


def test_it_covers_without_any_repeat_where_the_prior_is_right() -> None:
    source, covered, asked = random.Random(2), 0, 0
    for _ in range(TABLES):
        # The prior says how doubtful it is: deviations as it expects them.
        chi = source.gammavariate(PRIOR_FREEDOM / 2, 2)
        deviation = PRIOR_DEVIATION * math.sqrt(PRIOR_FREEDOM / chi)
        qualities, runs = table(source, deviation, 0.01, seeds=1)
        found, noise = measurements(runs), seed_noise(runs)
        assert noise == SeedNoise(deviation=PRIOR_DEVIATION)
        for a, b in pairs():
            low, high = difference(found[a], found[b], noise).interval()
            covered += low <= qualities[a] - qualities[b] <= high
            asked += 1
    assert 0.90 <= covered / asked <= 0.98


def test_it_covers_what_fresh_seeds_show() -> None:
    """Of the same designs on the same windows: there the seeds of both sides count alone."""
    source, covered, asked = random.Random(3), 0, 0
    for _ in range(TABLES):
        _, runs = table(source, 0.006, 0.02, seeds=2 * SEEDS)
        first = [each for each in runs if each.seed < SEEDS]
        fresh = measurements([each for each in runs if each.seed >= SEEDS])
        found, noise = measurements(first), seed_noise(first)
        for a, b in pairs():
            seen = difference(found[a], found[b], noise)
            again = difference(fresh[a], fresh[b], noise)
            error = math.hypot(seen.seeds_error, again.seeds_error)
            half = quantile(0.975, seen.freedom) * error
            covered += abs(seen.value - again.value) <= half
            asked += 1
    assert 0.90 <= covered / asked <= 0.98


def test_pairs_are_far_narrower_than_two_independent_errors() -> None:
    _, runs = table(random.Random(4), 0.004, 0.02)
    found, noise = measurements(runs), seed_noise(runs)
    shares = []
    for a, b in pairs():
        gap = difference(found[a], found[b], noise)
        unpaired = math.hypot(found[a].own_error, found[b].own_error, gap.seeds_error)
        shares.append(gap.error / unpaired)
    assert median(shares) < 1 / 3


def test_without_windows_the_error_is_that_of_two_texts() -> None:
    _, runs = table(random.Random(4), 0.004, 0.02)
    bare = measurements([replace(each, windows=()) for each in runs])
    gap = difference(bare[0], bare[1], seed_noise(runs))
    assert not gap.paired
    assert gap.windows_error == pytest.approx(math.hypot(bare[0].own_error, bare[1].own_error))


def test_a_difference_of_two_runs_by_hand() -> None:
    a = measurements([run(0, 0, [100.0, 200.0, 330.0])])[0]
    b = measurements([run(1, 0, [110.0, 190.0, 300.0])])[1]
    gap = difference(a, b, SURE)
    unit = math.log(2) * 900  # nats over three windows of 300 bytes
    assert gap.value == pytest.approx(30 / unit)
    # Window by window -10, 10 and 30: their variance is 400, that of a sum of three 1200.
    assert gap.windows_error == pytest.approx(math.sqrt(1200) / unit)
    back = difference(b, a, SURE)
    assert (back.value, back.error) == pytest.approx((-gap.value, gap.error))
    assert back.chance_lower == pytest.approx(1 - gap.chance_lower)
    # Two degrees of freedom, and t = 30 / sqrt(1200): the closed form.
    t = 30 / math.sqrt(1200)
    assert gap.chance_lower == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)), abs=1e-6)


def test_seeds_count_by_the_root_of_their_number() -> None:
    text, noise = Text(random.Random(0)), SeedNoise(deviation=0.01)
    a, b = (
        Measurement(tuple(text.design(number, 0.0, range(n), scatter=0.0, deviation=0.0)))
        for number, n in ((0, 4), (1, 1))
    )
    assert difference(a, b, noise).seeds_error == pytest.approx(0.01 * math.sqrt(1 / 4 + 1))


def test_a_common_part_cancels_between_the_same_seeds_alone() -> None:
    text, common = Text(random.Random(0)), 0.03**2
    noise = SeedNoise(deviation=0.01, common=common)

    def error(seeds: range, others: range) -> float:
        a, b = (
            Measurement(tuple(text.design(number, 0.0, own, scatter=0.0, deviation=0.0)))
            for number, own in ((0, seeds), (1, others))
        )
        return difference(a, b, noise).seeds_error

    assert error(range(3), range(3)) == pytest.approx(0.01 * math.sqrt(2 / 3))
    # Seed 0 of both cancels, and leaves the other two of `b`: their mean moves it by c / 3 each,
    # and what cancels of seed 0 is a third: (1 - 1/3)^2 + 2/9 = 1 + 1/3 - 2/3.
    assert error(range(1), range(3)) == pytest.approx(math.sqrt(0.01**2 * 4 / 3 + common * 2 / 3))
    apart = math.sqrt((0.01**2 + common) * (1 / 2 + 1 / 3))
    assert error(range(2), range(5, 8)) == pytest.approx(apart)


def test_two_texts_do_not_compare() -> None:
    nats = [400.0 + at for at in range(64)]
    one = measurements([run(0, 0, nats)])[0]
    shorter = measurements([run(1, 0, nats[:32])])[1]
    with pytest.raises(InputError, match=r"different windows: 64 of 19,200 bytes, and 32 of 9,600"):
        difference(one, shorter, SURE)
    longer = replace(run(1, 0, nats), bits_per_byte=1.0)  # the same nats over other bytes
    with pytest.raises(InputError, match="different windows"):
        difference(one, measurements([longer])[1], SURE)
    with pytest.raises(InputError, match="the runs of trial 1"):
        measurements([run(1, 0, nats), replace(longer, seed=1)])
