"""What repeats say of seeds: made-up runs of known noise."""

from __future__ import annotations

import math
import random
from statistics import mean

import pytest

from nas.search import seeds as seeds_module
from nas.search.seeds import (
    FEWEST,
    PRIOR_DEVIATION,
    PRIOR_FREEDOM,
    SHARED,
    SeedNoise,
    seed_noise,
)
from nas.store import MeasuredRun


def made(
    source: random.Random,
    deviations: list[float],
    seeds: int = 3,
    common: float = 0.0,
) -> list[MeasuredRun]:
    """Runs of designs with these deviations of their own, and a common one of each seed."""
    parts = [source.gauss(0, common) for _ in range(seeds)]
    return [
        MeasuredRun(trial, seed, 1.0, 2 + 0.1 * trial + part + source.gauss(0, deviation), 0.03)
        for trial, deviation in enumerate(deviations)
        for seed, part in enumerate(parts)
    ]


def test_without_repeats_the_prior_is_all_there_is() -> None:
    alone = made(random.Random(0), [0.1] * 20, seeds=1)
    assert seed_noise([]) == seed_noise(alone) == SeedNoise(deviation=PRIOR_DEVIATION)
    assert seed_noise([]).of(3) == (PRIOR_DEVIATION**2, SHARED)


def test_two_repeats_by_hand() -> None:
    runs = [
        MeasuredRun(0, seed, 1.0, bits, None) for seed, bits in ((0, 2.0), (1, 2.02), (2, 2.04))
    ]
    noise = seed_noise([*runs, MeasuredRun(1, 0, 1.0, 9.0, None)])
    squares = 2 * 0.02**2
    pooled = (PRIOR_FREEDOM * PRIOR_DEVIATION**2 + squares) / (PRIOR_FREEDOM + 2)
    assert noise.deviation == pytest.approx(math.sqrt(pooled)) and noise.repeats == 2
    own, freedom = noise.of(0)
    assert own == pytest.approx((SHARED * pooled + squares) / (SHARED + 2))
    assert freedom == SHARED + 2
    assert noise.of(1) == (pytest.approx(pooled), SHARED)
    assert noise.common == 0.0


def test_repeats_outweigh_the_prior() -> None:
    noise = seed_noise(made(random.Random(1), [0.02] * 200))
    assert noise.deviation == pytest.approx(0.02, rel=0.05) and noise.repeats == 400
    assert mean(variance for variance, _ in noise.own.values()) == pytest.approx(0.02**2, rel=0.1)
    assert PRIOR_DEVIATION < seed_noise(made(random.Random(1), [0.02])).deviation < 0.02


def test_a_design_that_scatters_more_is_given_more() -> None:
    noise = seed_noise(made(random.Random(2), [0.003] * 13 + [0.05], seeds=6))
    typical = max(noise.of(trial)[0] for trial in range(13))
    assert noise.of(13)[0] > 3 * typical


def test_a_common_part_is_found_where_it_is() -> None:
    found, own, parts = 0, [], []
    for at in range(100):
        noise = seed_noise(made(random.Random(at), [0.004] * 14, seeds=4, common=0.01))
        found += noise.common > 0
        own.append(noise.deviation**2)
        parts.append(noise.common)
    assert found >= 95
    assert mean(own) == pytest.approx(0.004**2, rel=0.1)
    assert mean(parts) == pytest.approx(0.01**2, rel=0.2)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_common_part_is_seldom_found_where_there_is_none(seeds: int) -> None:
    found = [
        seed_noise(made(random.Random(at), [0.004] * 14, seeds=seeds)).common > 0
        for at in range(200)
    ]
    assert mean(found) < 0.06


def test_few_designs_cannot_tell_a_common_part() -> None:
    runs = made(random.Random(0), [1e-6] * (FEWEST - 1), common=0.05)
    noise = seed_noise(runs)
    assert noise.common == 0.0
    assert all(variance > 0.01**2 for variance, _ in noise.own.values()), "it counts as their own"
    assert seed_noise(made(random.Random(0), [1e-6] * FEWEST, common=0.05)).common > 0


def test_designs_need_not_have_the_same_seeds() -> None:
    runs = made(random.Random(3), [0.002] * 14, seeds=5, common=0.02)
    kept = [run for run in runs if (run.trial + run.seed) % 4]
    whole, part = seed_noise(runs), seed_noise(kept)
    assert part.common == pytest.approx(whole.common, rel=0.3)
    assert part.deviation == pytest.approx(whole.deviation, rel=0.4)


@pytest.mark.parametrize("common", [0.0, 0.02])
def test_many_designs_are_fitted_in_columns_to_the_same_figures(common, monkeypatch) -> None:
    source = random.Random(1)
    luck = [source.gauss(0, common) for _ in range(4)]
    runs = [
        MeasuredRun(trial, seed, 1e9, 2 + 0.001 * trial + luck[seed] + source.gauss(0, 0.01), 0.01)
        for trial in range(seeds_module.MANY)
        for seed in range(2 + trial % 3)
    ]
    columns = seed_noise(runs)
    monkeypatch.setattr(seeds_module, "MANY", 10**9)
    one_by_one = seed_noise(runs)
    assert (columns.common > 0) == (one_by_one.common > 0) and (columns.common > 1e-5) == (
        common > 0
    )
    assert columns.deviation == pytest.approx(one_by_one.deviation, rel=1e-12)
    assert columns.common == pytest.approx(one_by_one.common, rel=1e-9)
    assert columns.repeats == one_by_one.repeats
    for trial, own in one_by_one.own.items():
        assert columns.own[trial] == pytest.approx(own, rel=1e-12)
