"""Student's t against published tables and closed forms."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from nas.search.student import below, quantile

# Upper 2.5% points of common tables.
TABLE = {
    1: 12.706205,
    2: 4.302653,
    3: 3.182446,
    4: 2.776445,
    10: 2.228139,
    30: 2.042272,
    120: 1.97993,
}


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_tables(freedom: int) -> None:
    assert quantile(0.975, freedom) == pytest.approx(TABLE[freedom], rel=1e-6)


@pytest.mark.parametrize("t", [-30.0, -2.0, -0.1, 0.0, 0.5, 1.0, 7.0])
def test_one_and_two_degrees_have_closed_forms(t: float) -> None:
    assert below(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, rel=1e-10)
    assert below(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), rel=1e-10)


@pytest.mark.parametrize("freedom", [0.7, 3.3, 28.5, 5000.0, 1e8, math.inf])
def test_it_is_a_distribution(freedom: float) -> None:
    assert below(0, freedom) == pytest.approx(0.5)
    for share in (0.5, 0.6, 0.9, 0.975, 0.999):
        t = quantile(share, freedom)
        assert below(t, freedom) == pytest.approx(share, rel=1e-9)
        assert below(-t, freedom) == pytest.approx(1 - share, rel=1e-6)
    values = [below(t / 10, freedom) for t in range(-50, 51)]
    assert values == sorted(values)


def test_many_degrees_are_the_normal_distribution() -> None:
    assert quantile(0.975, 1e6) == pytest.approx(NormalDist().inv_cdf(0.975), rel=1e-5)
    assert below(-1.3, 1e6) == pytest.approx(NormalDist().cdf(-1.3), rel=1e-5)
