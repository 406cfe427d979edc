"""Whole studies on made-up results: their budgets, the fold of their records, and its cost."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from depth import LONG
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scheduler_cases import (
    ENDINGS,
    EPOCH,
    FLAT,
    ask,
    decide,
    evaluation,
    finished,
    make_plan,
    running,
    top,
    trial,
)
from scheduler_cases import deviation as of_board

from nas.search import rungs
from nas.search.decisions import Done, Plan, Promote, Repeat, Start, Wait
from nas.search.evidence import deviation
from nas.search.rungs import expected_flops, levels
from nas.search.scheduler import Board
from nas.store.records import EvaluationRecord
from search_space.contract import Status

pytestmark = pytest.mark.slow


def simulate(plan: Plan, seed: int, workers: int, warm: int = 0):
    """Run a study to its end on made-up results; every record, in the order it was written."""
    draw = random.Random(seed)
    board = Board(plan)
    log: list[EvaluationRecord] = []
    active: list[EvaluationRecord] = []
    quality = {}
    trials = ids = clock = 0
    warm_left = warm

    def begin(number: int, rung: int, run: int) -> None:
        nonlocal ids
        ids += 1
        put(running(ids, number, rung, seed=run, plan=plan))
        active.append(log[-1])

    def put(record: EvaluationRecord) -> None:
        log.append(record)
        board.put(record)

    for _ in range(100_000):
        decision = board.decide(held={r.id for r in active}, warm_left=warm_left)
        if isinstance(decision, Done):
            assert not active
            return board, log, trials
        if len(active) < workers and not isinstance(decision, Wait):
            if isinstance(decision, Start):
                board.put_trial(trials, warm_left > 0, {"active_flops": draw.uniform(1, 9)})
                quality[trials] = draw.gauss(3, 0.3)
                warm_left -= warm_left > 0
                begin(trials, 0, plan.seed)
                trials += 1
            elif isinstance(decision, Promote):
                assert decision.evaluation.rung == decision.rung - 1
                begin(decision.evaluation.trial, decision.rung, plan.seed)
            else:
                assert isinstance(decision, Repeat)
                begin(decision.trial, len(plan.levels) - 1, decision.seed)
        else:
            assert active, decision
            record = active.pop(draw.randrange(len(active)))
            clock += 1
            status = draw.choices(ENDINGS, [20, 1, 1, 1])[0]
            bits = quality[record.trial] + draw.gauss(0, 0.05)
            put(
                replace(
                    record,
                    status=status,
                    reserved=0.0,
                    flops=record.reserved * (1 if status is Status.FINISHED else draw.random()),
                    bits_per_byte=bits if status is Status.FINISHED else None,
                    ended_at=EPOCH + timedelta(seconds=clock),
                )
            )
    raise AssertionError("the study does not end")


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("seed", range(5))
def test_a_whole_study_ends_within_its_budget(seed: int, workers: int) -> None:
    steps = levels(900.0, 3, 3)
    flops = expected_flops(steps, 0.3, 3, 60, warm=4, repeat_share=0.2)
    plan = make_plan(levels=steps, decay=0.3, trials=60, flops=flops, repeat_share=0.2, seeds=3)
    board, log, trials = simulate(plan, seed, workers, warm=4)
    ended = [record for record in log if record.status.final]
    firsts = [record for record in ended if record.seed == 0]
    reached = Counter(record.rung for record in firsts)
    # So many more than a third as the last promotions are made by ranks that have changed.
    assert trials == reached[0] == 60
    assert reached[0] // 3 - 2 <= reached[1] <= reached[0] / 3 + 4 + 8
    assert sum(record.flops for record in firsts) <= 0.8 * flops + 1
    repeats = [record for record in ended if record.seed > 0]
    assert 0 < sum(record.flops for record in repeats) <= 0.2 * flops + 1
    assert {record.rung for record in repeats} == {2}
    assert Counter((r.trial, r.seed, r.rung) for r in ended).most_common(1)[0][1] == 1
    assert max(record.seed for record in ended) <= 2
    for number in range(4):  # a warm start reaches the top unless it fails
        last = [record for record in firsts if record.trial == number][-1]
        assert last.rung == 2 or last.status is not Status.FINISHED
    counts = board.counts()
    assert sum(counts.ended) == len(ended) and counts.trials == trials
    assert counts.running == counts.stopped == (0, 0, 0)
    assert counts.repeats == len(repeats)
    assert counts.charged == counts.committed
    assert counts.charged == pytest.approx(sum(record.flops for record in ended), rel=1e-6)
    by_trial: dict[int, list[float]] = {}
    for record in ended:
        if record.rung == 2 and record.bits_per_byte is not None:
            by_trial.setdefault(record.trial, []).append(record.bits_per_byte)
    assert of_board(board) == pytest.approx(deviation(by_trial))


def test_no_more_than_one_in_reduction_goes_on_while_designs_begin() -> None:
    """However often the ranks change, promotions do not eat what new designs are to cost."""
    board, draw = Board(make_plan(trials=1000)), random.Random(3)
    begun: Counter[int] = Counter()
    for clock in range(600):
        decision = board.decide()
        if isinstance(decision, Start):
            number, rung = begun[0], 0
            board.put_trial(number, False, {"active_flops": draw.random()})
        else:
            assert isinstance(decision, Promote)
            number, rung = decision.evaluation.trial, decision.rung
        begun[rung] += 1
        board.put(evaluation(clock + 1, number, rung, bits=draw.random()))
        assert begun[1] <= begun[0] / 3 and begun[2] <= begun[1] / 3
    assert begun[1] >= begun[0] // 3 - 1


# The fold.


@pytest.fixture
def short_rungs_are_long(monkeypatch) -> None:
    """Rungs of eight results are ranked now and then only, as those of 256 are."""
    monkeypatch.setattr(rungs, "EXACT_BELOW", 8)
    monkeypatch.setattr(rungs, "RANKINGS", 1)


UNSHARED = [HealthCheck.function_scoped_fixture]  # the fixture sets the same for every example


@pytest.mark.usefixtures("short_rungs_are_long")
@settings(max_examples=80, deadline=None, suppress_health_check=UNSHARED)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 3, 16]),
    st.sampled_from([{}, FLAT, {"bounds": {"active_flops": 6.0}, "reduction": 2}]),
)
def test_any_interleaving_decides_as_the_records_do(seed: int, workers: int, more: dict) -> None:
    plan = make_plan(trials=40, flops=25_000.0, repeat_share=0.3, seeds=3, **more)
    _, log, trials = simulate(plan, seed, workers, warm=3)
    draw = random.Random(seed)
    cost = {n: {"active_flops": draw.uniform(1, 9)} for n in range(trials)}
    history: dict[int, list[EvaluationRecord]] = {}
    for record in log:
        history.setdefault(record.id, []).append(record)
    # Each evaluation's records in their order, some not yet all; otherwise any order.
    left = {id: some[: draw.randint(1, 2)] for id, some in history.items()}
    puts: list[int | None] = [id for id, some in left.items() for _ in some]
    puts += [None] * trials
    draw.shuffle(puts)
    numbers = draw.sample(range(trials), trials)
    board, known, latest = Board(plan), {}, {}
    for each in puts:
        if each is None:
            number = numbers.pop()
            known[number] = (trial(number, cost[number]["active_flops"]), number < 3)
            board.put_trial(number, number < 3, known[number][0].cost)
        else:
            latest[each] = left[each].pop(0)
            board.put(latest[each])
        if draw.random() < 0.4:
            arguments = {
                "held": {i for i in latest if draw.random() < 0.99},
                "warm_left": draw.choice([0, 0, 1]),
                "exhausted": draw.random() < 0.5,
            }
            fresh = decide(plan, known.values(), latest.values(), **arguments)
            assert board.decide(**arguments) == fresh


@pytest.mark.usefixtures("short_rungs_are_long")
def test_the_last_results_of_a_long_rung_count_when_no_more_will_come() -> None:
    plan = make_plan(trials=11, objectives=("bits_per_byte",))
    records = finished([5.0] * 8 + [1.0, 2.0, 3.0])
    assert rungs.settled(11) == 8
    assert ask(replace(plan, trials=12), [*records, running(20, 11)]) == Promote(records[0], 1)
    records += [running(21, 0, 1), running(22, 1, 1)]
    assert ask(replace(plan, trials=12), [*records, running(20, 11)]) == Wait()
    assert ask(plan, records) == Promote(records[8], 1)


@pytest.mark.usefixtures("short_rungs_are_long")
def test_the_last_results_count_for_repeats_when_others_have_had_theirs() -> None:
    plan = make_plan(trials=10, repeat_share=0.5, seeds=2)
    records = [top(1 + i, i, 5.0 + i) for i in range(8)] + [top(9, 8, 1.0), top(10, 9, 2.0)]
    assert ask(plan, records) == Repeat(0, 1)  # the best of the eight
    assert ask(plan, [*records, running(20, 0, 2, seed=1)]) == Repeat(8, 1)


def test_what_ended_cannot_change() -> None:
    board = Board(make_plan())
    board.put_trial(0, False, {"active_flops": 1.0})
    board.put_trial(0, False, {"active_flops": 1.0})
    record = evaluation(1, 0, bits=1.0)
    board.put(record)
    board.put(record)
    assert board.counts().ended == (1, 0, 0)
    for other in (replace(record, flops=1.0), replace(record, status=Status.STOPPED)):
        with pytest.raises(ValueError, match="evaluation 1 has ended"):
            board.put(other)
    with pytest.raises(ValueError, match="trial 0 differs"):
        board.put_trial(0, True, {"active_flops": 1.0})


# Its cost.


def long_study(trials: int, workers: int, repeats: bool):
    """Seconds of put and decide, for each thousand evaluations, and the board."""
    steps = levels(8000.0, 4, 2)
    share = 0.4 if repeats else 0.0
    plan = make_plan(
        levels=steps, reduction=2, trials=trials, flops=1e12, repeat_share=share, seeds=3
    )
    draw = random.Random(0)
    board, spent, seconds, active = Board(plan), [], 0.0, {}
    number = ids = 0
    clock = EPOCH
    while True:
        begin = time.perf_counter()
        decision = board.decide(held=active.keys())
        seconds += time.perf_counter() - begin
        if isinstance(decision, Done):
            return spent, board, ids
        run, rung = 0, 0
        if len(active) == workers or isinstance(decision, Wait):
            id = next(iter(active))
            clock += timedelta(seconds=1)
            record = active.pop(id)
            bits = 2 + record.trial * 7919 % 10007 / 10007 + draw.gauss(0, 0.01)
            record = replace(
                record,
                status=Status.FINISHED,
                reserved=0.0,
                flops=record.reserved,
                bits_per_byte=bits,
                ended_at=clock,
            )
        else:
            ids += 1
            if isinstance(decision, Start):
                board.put_trial(number, number < 14, {"active_flops": draw.uniform(1, 9)})
                which, number = number, number + 1
            elif isinstance(decision, Promote):
                which, rung = decision.evaluation.trial, decision.rung
            else:
                which, rung, run = decision.trial, 3, decision.seed
            record = active[ids] = running(ids, which, rung, seed=run, plan=plan)
            if ids % 1000 == 0:
                spent.append(seconds)
                seconds = 0.0
        begin = time.perf_counter()
        board.put(record)
        seconds += time.perf_counter() - begin


@LONG
def test_a_decision_costs_the_same_at_any_length() -> None:
    spent, _, n = long_study(trials=5_000, workers=1000, repeats=True)
    assert n > 7_500
    # Two puts and three decisions an evaluation; generous, because machines are shared.
    assert max(spent) / 1000 < 5e-3
    first, rest = spent[1:4], spent[4:]
    assert sum(rest) / len(rest) < 2 * sum(first) / len(first) + 0.2


def test_a_board_is_small() -> None:
    tracemalloc.start()
    try:
        _, board, n = long_study(trials=300, workers=30, repeats=False)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert board.counts().trials == 300
    assert used / n < 2000  # bytes an evaluation
