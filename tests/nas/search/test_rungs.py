"""Levels and their costs, and the order of a rung against slow obvious forms."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from nas.search.rungs import (
    LARGEST_FRONT,
    Rung,
    Standing,
    expected_flops,
    levels,
    path_flops,
    rank,
    rung_flops,
    settled,
)
from search_space.errors import InputError


def test_levels_ascend_to_the_whole_budget() -> None:
    assert levels(9e12, 3, 3) == (1e12, 3e12, 9e12)
    assert levels(7.0, 1, 3) == (7.0,)


@pytest.mark.parametrize(
    ("flops", "rungs", "reduction", "says"),
    [(0, 3, 3, "trial_flops"), (1e9, 0, 3, "rungs"), (1e9, 3, 1, "reduction")],
)
def test_levels_that_make_no_sense_are_refused(flops, rungs, reduction, says) -> None:
    with pytest.raises(InputError, match=says):
        levels(flops, rungs, reduction)


def test_a_promotion_pays_for_the_decayed_share_anew() -> None:
    # Trunks leave at 0.75 of a level: 1 + (4 - 0.75) + (16 - 3).
    assert rung_flops((1.0, 4.0, 16.0), 0.25) == (1.0, 3.25, 13.0)
    assert path_flops((1.0, 4.0, 16.0), 0.25) == 17.25
    assert path_flops((16.0,), 0.25) == 16.0


def test_expected_flops_count_promotions_warm_starts_slack_and_repeats() -> None:
    steps = (1.0, 4.0, 16.0)
    halved = 1.0 + 3.25 / 4 + 13.0 / 16
    assert expected_flops(steps, 0.25, 4, 10) == pytest.approx(10 * halved + 17.25)
    mixed = 2 * 17.25 + 8 * halved + 17.25
    assert expected_flops(steps, 0.25, 4, 10, warm=2) == pytest.approx(mixed)
    assert expected_flops(steps, 0.25, 4, 10, 2, 0.2) == pytest.approx(mixed / 0.8)
    assert expected_flops(steps, 0.25, 4, 3, warm=9) == pytest.approx(4 * 17.25)
    assert expected_flops((16.0,), 0.25, 4, 10) == 160.0
    with pytest.raises(InputError, match="share"):
        expected_flops(steps, 0.25, 4, 10, 0, 1.0)


def dominates(a, b) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def volume(points, reference) -> float:
    """Hypervolume by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            corner = [max(column) for column in zip(*some, strict=True)]
            box = math.prod(r - c for r, c in zip(reference, corner, strict=True))
            total += box if size % 2 else -box
    return total


def slow_rank(rows):
    """rows: (values, excess, bits, number). The order by the words of `rank`."""
    left = [row for row in rows if row[1] <= 0]
    order = []
    while left:
        front = [row for row in left if not any(dominates(q[0], row[0]) for q in left)]
        low = [min(c) for c in zip(*(row[0] for row in front), strict=True)]
        high = [max(c) for c in zip(*(row[0] for row in front), strict=True)]

        def scaled(values, low=low, high=high):
            return tuple(
                (v - a) / (b - a) if b > a else 0.0
                for v, a, b in zip(values, low, high, strict=True)
            )

        points = sorted({scaled(row[0]) for row in front})
        ref = [2.0] * len(low)

        def share(row, points=points, ref=ref, scaled=scaled):
            without = [p for p in points if p != scaled(row[0])]
            return round(volume(points, ref) - volume(without, ref), 9) if without else 0.0

        front.sort(key=lambda row: (-share(row), row[2], row[3]))
        order += front
        left = [row for row in left if row not in front]
    return order + sorted((r for r in rows if r[1] > 0), key=lambda r: (r[1], r[2], r[3]))


def ranked(rows, most=None):
    values, excess, bits, numbers = zip(*rows, strict=True)
    return [rows[i] for i in rank(values, excess, bits, numbers, most)]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_the_order_is_the_slow_one_whatever_order_comes_in(objectives: int, seed: int) -> None:
    draw = random.Random(seed)
    rows = [
        (
            (value := tuple(float(draw.randrange(6)) for _ in range(objectives))),
            draw.choice([0.0, 0.0, -0.5, 0.25, 0.5]),
            value[0],
            number,
        )
        for number in range(18)
    ]
    expected = slow_rank(rows)
    if objectives == 1:
        key = [
            (row[1] if row[1] > 0 else 0, row[0] if row[1] <= 0 else (), *row[2:]) for row in rows
        ]
        expected = [rows[k[-1]] for k in sorted(key, key=lambda k: (k[0], k[2], k[3]))]
    for _ in range(3):
        draw.shuffle(rows)
        assert ranked(rows) == expected
        assert ranked(rows, 5) == expected[:5]
    large = [((row[0][0] * 2**40, *row[0][1:]), *row[1:]) for row in rows]
    assert [row[3] for row in ranked(large)] == [row[3] for row in expected]


def test_a_feasible_result_comes_before_a_better_one_that_breaks_a_bound() -> None:
    rows = [((1.0, 1.0), 0.1, 1.0, 0), ((9.0, 9.0), 0.0, 9.0, 1), ((0.5, 0.5), 0.2, 0.5, 2)]
    assert [row[3] for row in ranked(rows)] == [1, 0, 2]


def test_contributions_order_a_front() -> None:
    # The ends first (0.39 and 0.2 of the front's box), 4 has 0.06; 1 and 2 crowd each other.
    points = [(0.0, 10.0), (4.0, 4.0), (4.1, 3.9), (10.0, 0.0), (2.0, 7.0)]
    rows = [(p, 0.0, p[0], i) for i, p in enumerate(points)]
    assert [row[3] for row in ranked(rows)] == [3, 0, 4, 2, 1]


def test_equal_points_go_by_bits_per_byte_then_number() -> None:
    rows = [((1.0, 1.0), 0.0, 3.0, 2), ((1.0, 1.0), 0.0, 3.0, 1), ((1.0, 1.0), 0.0, 2.0, 5)]
    assert [row[3] for row in ranked(rows)] == [5, 1, 2]
    assert rank([], [], [], []) == []


def test_a_large_front_of_many_objectives_goes_by_bits_per_byte() -> None:
    draw = random.Random(0)
    points = []
    for _ in range(LARGEST_FRONT + 1):
        point = [draw.random() for _ in range(4)]
        points.append(tuple(x / sum(point) for x in point))
    rows = [(p, 0.0, p[0], i) for i, p in enumerate(points)]
    assert ranked(rows) == sorted(rows, key=lambda row: row[2])


def test_what_is_compared_grows_by_a_64th() -> None:
    assert [settled(n) for n in (0, 1, 255, 256, 259, 260)] == [0, 1, 255, 256, 256, 260]
    assert [settled(n) for n in (511, 512, 519, 520, 1023, 20_000)] == [
        *(508, 512, 512, 520, 1016, 19_968),
    ]
    assert all(settled(n) <= settled(n + 1) <= n + 1 for n in range(5000))


@pytest.mark.parametrize("n", [2, 3, 4, 8, 9, 255, 256, 258, 700])
def test_a_rung_lets_one_in_three_go_on(n: int) -> None:
    rung = Rung(3, 1)
    draw = random.Random(n)
    told = [(float(i), i, i, draw.random()) for i in range(n)]
    inserted = draw.sample(told, n)  # in any order
    for when, evaluation, trial, value in inserted:
        rung.add(when, evaluation, trial, Standing((value,), 0.0, value))
        if draw.random() < 0.1:
            rung.best()
    m = settled(n)
    best = sorted(told[:m], key=lambda each: each[3])[: m // 3]
    assert list(reversed(rung.best())) == [trial for _, _, trial, _ in best]


def test_what_was_not_measured_counts_but_never_goes_on() -> None:
    rung = Rung(2, 2)
    for number in range(5):
        rung.add(float(number), number, number, None)
    rung.add(9.0, 9, 9, Standing((1.0, 1.0), 0.5, 1.0))
    assert rung.best() == [9]
