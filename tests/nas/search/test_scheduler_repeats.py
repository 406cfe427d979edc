"""Which design is repeated next, with which seed, on made-up records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scheduler_cases import ENDINGS, REPEATS, ask, evaluation, make_plan, running, top

from nas.search.decisions import Done, Repeat, Start, Wait
from nas.search.scheduler import Board


def test_repeats_wait_for_the_main_phase() -> None:
    plan = make_plan(**REPEATS, trials=2)
    assert ask(plan, [top(1, 0, 1.0), running(2, 1, 2)]) == Wait()
    assert ask(plan, [top(1, 0, 1.0), top(2, 1, 2.0)]) == Repeat(0, 1)
    assert ask(replace(plan, trials=3), [top(1, 0, 1.0), top(2, 1, 2.0)]) == Start()
    assert ask(replace(plan, seeds=1), [top(1, 0, 1.0), top(2, 1, 2.0)]) == Done()
    assert ask(replace(plan, repeat_share=0.0), [top(1, 0, 1.0), top(2, 1, 2.0)]) == Done()


def test_fewest_seeds_then_frontier_then_bits_then_number() -> None:
    plan = make_plan(**REPEATS, trials=4, bounds={"active_flops": 50.0})
    records = [
        top(1, 0, 2.0, active=10.0),
        top(2, 1, 1.0, active=20.0),
        top(3, 2, 1.0, active=20.0),
        top(4, 3, 2.04, active=10.0),  # within noise, once the noise is known
        top(5, 4, 0.1, active=60.0),  # breaks a bound
        top(6, 5, 9.0, active=19.0),  # far from the frontier
    ]
    order = [Repeat(1, 1), Repeat(2, 1), Repeat(0, 1)]
    order += [Repeat(3, 1)]  # the fewest seeds: before the frontier's third
    order += [Repeat(1, 2)]  # whose mean then leaves 2 behind
    order += [Repeat(0, 2), Repeat(2, 2), Repeat(3, 2)]
    bits = {0: 2.0, 1: 1.0, 2: 1.0, 3: 2.04}
    for id, expected in enumerate(order, 10):
        assert ask(plan, records) == expected
        noise = 0.1 if expected.seed == 1 else -0.1
        number = expected.trial
        active = records[number].active_flops
        records.append(top(id, number, bits[number] + noise, expected.seed, active))
    assert ask(plan, records) == Done()


def test_repeats_that_are_under_way_count_as_had() -> None:
    plan = make_plan(**REPEATS, trials=4)
    board = Board(plan)
    for number, active in enumerate((10.0, 20.0, 20.0, 5.0)):
        board.put_trial(number, False, {"active_flops": active})
    for id, number, bits, run in [(1, 0, 2.0, 0), (2, 1, 1.0, 0), (3, 2, 1.05, 0), (4, 3, 3.0, 0)]:
        board.put(top(id, number, bits, run, active=None))
    board.put(top(5, 3, 3.2, 1, active=None))
    given = []
    for id in range(10, 20):
        decision = board.decide(held=set(range(10, 20)))
        if decision == Wait():
            break
        given.append((decision.trial, decision.seed))
        board.put(running(id, decision.trial, 2, seed=decision.seed))
    # 2 is within noise: it comes after the frontier whenever they have had as many.
    assert given == [(1, 1), (0, 1), (2, 1), (1, 2), (0, 2), (3, 2), (2, 2)]


def test_without_a_deviation_only_the_frontier_is_repeated() -> None:
    plan = make_plan(repeat_share=0.5, seeds=2, trials=2)
    records = [top(1, 0, 1.0), top(2, 1, 1.0 + 1e-9)]
    records.append(running(3, 0, 2, seed=1))
    assert ask(plan, records) == Wait()
    records[-1] = top(3, 0, 1.0, seed=1)
    assert ask(plan, records) == Done()  # no spread was seen
    records[-1] = top(3, 0, 0.9, seed=1)
    assert ask(plan, records) == Repeat(1, 1)


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_repeat_that_fails_was_a_seed_tried(ending) -> None:
    plan = make_plan(**REPEATS, trials=1)
    records = [top(1, 0, 1.0)]
    for seed in (1, 2):
        assert ask(plan, records) == Repeat(0, seed)
        records.append(evaluation(1 + seed, 0, 2, ending, seed=seed))
    assert ask(plan, records) == Done()


def test_seeds_follow_the_study_s() -> None:
    plan = make_plan(**REPEATS, trials=1, seed=40)
    record = top(1, 0, 1.0, seed=40, plan=plan)
    assert ask(plan, [record]) == Repeat(0, 41)
    assert ask(plan, [record, running(2, 0, 2, seed=41, plan=plan)]) == Repeat(0, 42)
