"""What a study does next, on made-up records: each rule, whole studies, the fold, and its cost."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.search import rungs
from nas.search.decisions import Done, Plan, Promote, Repeat, Start, TakeUp, Wait
from nas.search.evidence import deviation
from nas.search.rungs import expected_flops, levels, rung_flops
from nas.search.scheduler import Board, decide
from nas.store.records import EvaluationRecord, TrialRecord
from search_space.contract import Status
from search_space.spec import FFNSpec

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
SPEC = FFNSpec(d_ff=8)
ENDINGS = [Status.FINISHED, Status.DIVERGED, Status.FAILED, Status.OUT_OF_MEMORY]


def make_plan(**more) -> Plan:
    """Levels 100, 300, 900 with half of each trained anew: evaluations cost 100, 250 and 750."""
    usual = {
        "levels": (100.0, 300.0, 900.0),
        "reduction": 3,
        "decay": 0.5,
        "objectives": ("bits_per_byte", "active_flops"),
        "trials": 100,
        "flops": 1e9,
    }
    return Plan(**(usual | more))


FLAT = {"levels": (900.0,), "objectives": ("bits_per_byte",)}


def trial(number: int, active: float = 10.0) -> TrialRecord:
    cost = {"active_flops": active, "total_params": 5.0}
    return TrialRecord(
        id=number + 1,
        study_id=1,
        number=number,
        spec=SPEC,
        key=SPEC.key,
        params={},
        source="x",
        cost=cost,
        status=Status.RUNNING,
        created_at=EPOCH,
    )


def evaluation(
    id: int,
    trial: int,
    rung: int = 0,
    status: Status = Status.FINISHED,
    bits: float | None = None,
    seed: int = 0,
    active: float | None = None,
    plan: Plan | None = None,
    **more,
) -> EvaluationRecord:
    plan = plan or make_plan()
    repeat = seed != plan.seed
    cost = plan.levels[rung] if repeat else rung_flops(plan.levels, plan.decay)[rung]
    usual = {
        "attempt": 1,
        "losses": 0,
        "owner": "w" if status is Status.RUNNING else "",
        "start_flops": plan.levels[rung] - cost,
        "reserved": cost if status is Status.RUNNING else 0.0,
        "flops": cost if status.final else 0.0,
        "trunk_flops": plan.levels[rung] * (1 - plan.decay),
        "bits_per_byte_se": None,
        "seconds": 1.0,
        "error": "",
        "created_at": EPOCH,
        "ended_at": EPOCH + timedelta(seconds=id) if status.final else None,
    }
    return EvaluationRecord(
        id=id,
        trial_id=trial + 1,
        trial=trial,
        seed=seed,
        rung=rung,
        status=status,
        until_flops=plan.levels[rung],
        bits_per_byte=bits if status is Status.FINISHED else None,
        active_flops=active if status is Status.FINISHED else None,
        **(usual | more),
    )


def running(id: int, trial: int, rung: int = 0, **more) -> EvaluationRecord:
    return evaluation(id, trial, rung, Status.RUNNING, **more)


def held(*records: EvaluationRecord) -> set[int]:
    return {record.id for record in records if not record.status.final}


def ask(plan: Plan, records, trials=None, warm=(), **more):
    """`decide` with the trials that the records speak of, and what is open held."""
    numbers = {record.trial for record in records} if trials is None else range(trials)
    pairs = [(trial(number), number in warm) for number in sorted(numbers)]
    return decide(plan, pairs, records, **({"held": held(*records)} | more))


def finished(bits: list[float], rung: int = 0, first: int = 1) -> list[EvaluationRecord]:
    return [evaluation(first + i, i, rung, bits=value) for i, value in enumerate(bits)]


# Take up, start, wait, done.


def test_an_empty_study_starts_and_one_without_trials_is_done() -> None:
    assert ask(make_plan(), []) == Start()
    assert ask(make_plan(trials=0), []) == Done()
    assert ask(make_plan(), [], exhausted=True) == Done()


@pytest.mark.parametrize("status", [Status.RUNNING, Status.STOPPED])
def test_what_nobody_works_on_is_taken_up_first_lowest_id_first(status) -> None:
    records = [evaluation(i, i, status=status) for i in (7, 3, 5)]
    assert ask(make_plan(), records, held=set(), warm_left=2) == TakeUp(records[1])
    assert ask(make_plan(), records, held={3, 99}) == TakeUp(records[2])
    assert ask(make_plan(), records, held={3, 5, 7}) == Start()


def test_what_ended_is_not_taken_up() -> None:
    records = [evaluation(i, i, status=status) for i, status in enumerate(ENDINGS)]
    assert ask(make_plan(trials=4, reduction=9), records, held=set()) == Done()


def test_it_waits_for_what_runs() -> None:
    assert ask(make_plan(trials=1), [running(1, 0)]) == Wait()
    assert ask(make_plan(), [running(1, 0)], exhausted=True) == Wait()
    assert ask(make_plan(trials=1), [evaluation(1, 0)]) == Done()


def test_warm_starts_go_before_promotions_and_new_designs_after() -> None:
    records = finished([3.0, 2.0, 1.0])
    assert ask(make_plan(), records, warm_left=1) == Start()
    assert ask(make_plan(), records, warm_left=1, exhausted=True) == Start()
    assert ask(make_plan(), records) == Promote(records[2], 1)
    assert ask(make_plan(trials=3), records, warm_left=1) == Promote(records[2], 1)
    assert ask(make_plan(), records[:2]) == Start()


# Promotions.


@pytest.mark.parametrize("n", range(1, 10))
def test_one_in_three_goes_on_best_first(n: int) -> None:
    plan = make_plan(trials=n, objectives=("bits_per_byte",))
    records = finished([float(9 - i) for i in range(n)])
    for place in range(n // 3):
        decision = ask(plan, records)
        assert decision == Promote(records[n - 1 - place], 1)
        records.append(running(100 + place, decision.evaluation.trial, 1))
    if n >= 3:
        assert ask(plan, records) == Wait()


def test_a_study_of_few_designs_brings_its_best_to_the_top() -> None:
    plan = make_plan(trials=2, objectives=("bits_per_byte",))
    records = finished([2.0, 3.0])
    assert ask(plan, [records[0], running(2, 1)]) == Wait()
    assert ask(plan, records) == Promote(records[0], 1)
    assert ask(replace(plan, flops=449.0), records) == Done()  # 200 are spent, 250 are needed
    records.append(evaluation(3, 0, 1, bits=1.0))
    assert ask(plan, records) == Promote(records[2], 2)
    assert ask(plan, [*records, evaluation(4, 0, 2, bits=0.5)]) == Done()
    # One that failed on its way leaves the place to the next.
    failed = evaluation(4, 0, 2, Status.DIVERGED)
    assert ask(plan, [*records, failed]) == Promote(records[1], 1)
    assert ask(plan, [evaluation(1, 0, status=Status.FAILED)], trials=2) == Done()


@pytest.mark.parametrize("decay", [0.31, 0.33, 0.47])
def test_whole_steps_keep_no_design_from_the_top_and_pass_no_budget(decay: float) -> None:
    """Steps of 7 FLOPs: the trunk is left before its level, so the next rung costs more."""
    steps = (350.0, 1050.0, 3150.0)
    whole = sum(rung_flops(steps, decay)) + 2 * 7
    plan = make_plan(levels=steps, decay=decay, trials=1, flops=whole, step=7.0)
    records: list[EvaluationRecord] = []
    for rung, level in enumerate(steps):
        decision = ask(plan, records, warm={0}, warm_left=not rung)
        assert isinstance(decision, Promote if rung else Start), rung
        start = records[-1].trunk_flops if rung else 0.0
        own = {"flops": level - start, "start_flops": start, "bits": 1.0, "plan": plan}
        left = (1 - decay) * level // 7 * 7
        records.append(evaluation(rung + 1, 0, rung, trunk_flops=left, **own))
    assert sum(record.flops for record in records) <= whole


@pytest.mark.parametrize("share", [0.0, 0.1, 0.15, 0.25, 0.9])
def test_a_budget_for_so_many_designs_begins_all_of_them(share: float) -> None:
    """However the sums of FLOPs are rounded."""
    for flops in (4e11, 1e12 / 7):
        for n in range(1, 40):
            whole = expected_flops([flops], 0.3, 3, n, repeat_share=share)
            plan = make_plan(**FLAT | {"levels": (flops,)}, trials=n, flops=whole)
            plan = replace(plan, repeat_share=share, seeds=3)
            begun = [running(i + 1, i, plan=plan) for i in range(n - 1)]
            assert ask(plan, begun, warm_left=n) == Start(), (flops, n)


def test_the_highest_rung_goes_first() -> None:
    low = finished([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    high = finished([1.0, 2.0, 3.0], rung=1, first=11)
    assert ask(make_plan(trials=6), low + high) == Promote(high[0], 2)
    done = [*low, *high, running(20, 0, 2)]
    assert ask(make_plan(trials=6), done) == Wait()  # 2 of 6 went on already
    more = [*done, *[evaluation(30 + i, 6 + i, bits=0.5 + i / 10) for i in range(3)]]
    assert ask(make_plan(trials=9), more) == Promote(more[-3], 1)


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_an_ending_of_any_kind_counts_but_only_finished_ones_go_on(ending) -> None:
    plan = make_plan(trials=3)
    records = [evaluation(1, 0, bits=2.0), *[evaluation(i, i, status=ending) for i in (2, 3)]]
    assert ask(plan, records) == Promote(records[0], 1)
    assert ask(plan, [evaluation(i, i, status=ending) for i in (1, 2, 3)]) == Done()
    assert ask(make_plan(trials=3), [records[0], records[1], running(3, 3)]) == Wait()


@pytest.mark.parametrize("ending", [*ENDINGS, Status.RUNNING, Status.STOPPED])
def test_a_run_goes_on_once_whatever_came_of_it(ending) -> None:
    records = [*finished([1.0, 2.0, 3.0]), evaluation(9, 0, 1, ending, bits=1.0)]
    records.append(evaluation(10, 9, 2, bits=4.0))  # a study that has something at the top
    decision = ask(make_plan(trials=3, reduction=3), records)
    assert decision == (Done() if ending.final else Wait())


def test_feasible_designs_go_on_first_by_what_was_measured() -> None:
    plan = make_plan(trials=3, bounds={"active_flops": 20.0})
    records = [
        evaluation(1, 0, bits=1.0, active=21.0),
        evaluation(2, 1, bits=3.0, active=20.0),
        evaluation(3, 2, bits=2.0, active=30.0),
    ]
    assert ask(plan, records) == Promote(records[1], 1)
    over = [replace(records[1], active_flops=40.0) if r is records[1] else r for r in records]
    assert ask(plan, over) == Promote(records[0], 1)


def test_a_front_is_broken_by_hypervolume() -> None:
    plan = make_plan(trials=5, reduction=5)
    points = [(0.0, 10.0), (4.0, 4.0), (4.1, 3.9), (10.0, 0.0), (2.0, 7.0)]
    records = [evaluation(i + 1, i, bits=b, active=a) for i, (b, a) in enumerate(points)]
    assert ask(plan, records) == Promote(records[3], 1)


def test_one_that_has_no_measure_of_an_objective_does_not_go_on() -> None:
    records = [evaluation(i, i, bits=float(i)) for i in (1, 2, 3)]
    records[0] = replace(records[0], bits_per_byte=float("nan"))
    assert ask(make_plan(trials=3), records) == Promote(records[1], 1)


def test_a_warm_start_always_goes_on_and_after_the_best() -> None:
    records = finished([1.0, 2.0, 9.0, 8.0])
    assert ask(make_plan(trials=4), records, warm={2, 3}) == Promote(records[0], 1)
    # New designs come before one that is not among the best, and its FLOPs are kept for it.
    records.append(evaluation(9, 0, 1, bits=1.0))
    assert ask(make_plan(trials=5), records, warm={2, 3}) == Start()
    assert ask(make_plan(trials=4), records, warm={2, 3}) == Promote(records[2], 1)
    records.append(evaluation(10, 2, 1, Status.DIVERGED))
    assert ask(make_plan(trials=4), records, warm={2, 3}) == Promote(records[3], 1)
    records.append(evaluation(11, 3, 1, bits=8.0))
    # The best of the three that ended at rung 1, and then the warm start there.
    assert ask(make_plan(trials=4), records, warm={2, 3}) == Promote(records[4], 2)
    records.append(evaluation(12, 0, 2, bits=1.0))
    assert ask(make_plan(trials=4), records, warm={2, 3}) == Promote(records[6], 2)


def test_a_warm_start_that_is_among_the_best_does_not_wait() -> None:
    """It takes no place of the one in `reduction` that may go on while designs begin."""
    records = finished([1.0, 2.0, 9.0, 8.0, 7.0, 6.0, 5.0])
    records.append(evaluation(9, 1, 1, bits=2.0))
    assert ask(make_plan(trials=90), records, warm={0}) == Promote(records[0], 1)
    assert ask(make_plan(trials=90), records[:2], warm={0}) == Start()


def test_repeats_do_not_count_in_a_rung() -> None:
    plan = make_plan(trials=3)
    records = [*finished([1.0, 2.0]), evaluation(8, 0, 0, bits=1.0, seed=1)]
    assert ask(plan, [*records, running(9, 2)]) == Wait()


# The budget.


def test_a_design_is_begun_only_if_its_whole_path_can_be_paid() -> None:
    path = 100.0 + 250.0 + 750.0
    assert ask(make_plan(flops=path), []) == Start()
    assert ask(make_plan(flops=path - 1), []) == Done()
    assert ask(make_plan(flops=path - 1), [], warm_left=1) == Done()
    assert ask(make_plan(flops=path + 99), [running(1, 0)]) == Wait()
    assert ask(make_plan(flops=path + 100), [running(1, 0)]) == Start()


def test_reserved_and_charged_both_count() -> None:
    record = running(1, 0, reserved=60.0, flops=40.0)
    assert ask(make_plan(flops=1200.0), [record]) == Start()
    assert ask(make_plan(flops=1199.0), [record]) == Wait()
    assert ask(make_plan(flops=1199.0), [replace(record, reserved=59.0)]) == Start()


def test_a_promotion_that_cannot_be_paid_leaves_a_cheaper_one() -> None:
    low, high = finished([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), finished([1.0], 1, 11)
    records = [*low, *high, *[evaluation(12 + i, 7 + i, 1, bits=5.0 + i) for i in range(2)]]
    spent = 6 * 100.0 + 3 * 250.0
    assert ask(make_plan(trials=6, flops=spent + 750), records) == Promote(high[0], 2)
    assert ask(make_plan(trials=6, flops=spent + 749), records) == Promote(low[1], 1)
    assert ask(make_plan(trials=6, flops=spent + 249), records) == Done()


def test_a_warm_start_on_its_way_keeps_its_flops() -> None:
    rest = 250.0 + 750.0
    plan = make_plan(flops=100.0 + 1100.0 + rest)
    assert ask(plan, [running(1, 0)], warm={0}) == Start()
    plan = replace(plan, flops=plan.flops - 1)
    assert ask(plan, [running(1, 0)], warm={0}) == Wait()
    assert ask(plan, [running(1, 0)]) == Start()
    assert ask(plan, [evaluation(1, 0, status=Status.DIVERGED)], warm={0}) == Start()
    # The rest is there for itself to the last FLOP.
    records = [evaluation(1, 0, bits=1.0)]
    tight = make_plan(flops=100.0 + rest)
    assert ask(tight, records, warm={0}) == Promote(records[0], 1)


def test_main_phase_and_repeats_have_each_their_part() -> None:
    plan = make_plan(**FLAT, flops=9000.0, repeat_share=0.3, seeds=5)
    records = [evaluation(i, i, 0, bits=float(i), plan=plan) for i in range(1, 7)]
    assert ask(plan, records) == Start()  # 5400 of 6300
    records.append(running(7, 7, 0, plan=plan))
    decision = ask(plan, records)  # used up: a repeat, although a first run is under way
    assert decision == Repeat(1, 1)
    for seed in (1, 2, 3):
        assert ask(plan, records) == Repeat(1, seed)
        records.append(evaluation(20 + seed, 1, 0, bits=1.0, seed=seed, plan=plan))
    assert ask(plan, records) == Wait()  # 2700 of 2700
    # What repeats leave is not the main phase's, nor the other way round.
    assert ask(replace(plan, repeat_share=0.0), records[:7]) == Start()


def test_no_part_may_pass_the_whole() -> None:
    plan = make_plan(**FLAT, flops=2700.0, repeat_share=1 / 3, seeds=5, trials=9)
    over = evaluation(1, 0, 0, bits=1.0, plan=plan, flops=1801.0)
    assert ask(plan, [over]) == Done()
    first = evaluation(1, 0, 0, Status.FAILED, plan=plan)
    repeat = evaluation(2, 0, 0, Status.FAILED, seed=1, plan=plan)
    assert ask(plan, [first, repeat]) == Start()
    assert ask(plan, [first, replace(repeat, flops=901.0)]) == Done()


# Repeats.

REPEATS = {"repeat_share": 0.5, "seeds": 3}


def top(id: int, trial: int, bits: float, seed: int = 0, active: float = 10.0, **more):
    return evaluation(id, trial, 2, bits=bits, seed=seed, active=active, **more)


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


# One rung and no repeats.


def test_one_rung_without_repeats_starts_while_trials_and_budget_are_left() -> None:
    plan = make_plan(**FLAT, trials=5, flops=3.5 * 900)
    records: list[EvaluationRecord] = []
    for number in range(3):
        assert ask(plan, records) == Start()
        records.append(running(number + 1, number, plan=plan))
    assert ask(plan, records) == Wait()
    ended = [evaluation(i + 1, i, bits=1.0, plan=plan, flops=700.0) for i in range(3)]
    assert ask(plan, ended) == Start()  # 2100 and 900 fit in 3150
    assert ask(replace(plan, trials=3), ended) == Done()


# Whole studies.


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
    assert board.deviation() == pytest.approx(deviation(by_trial))


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


def test_counts_tell_running_from_stopped_and_charged_from_reserved() -> None:
    board = Board(make_plan())
    for number in range(3):
        board.put_trial(number, False, {"active_flops": 1.0})
    board.put(running(1, 0, flops=30.0, reserved=70.0))
    board.put(evaluation(2, 1, 1, Status.STOPPED, flops=5.0))
    board.put(evaluation(3, 2, bits=1.0))
    counts = board.counts()
    assert (counts.running, counts.stopped, counts.ended) == ((1, 0, 0), (0, 1, 0), (1, 0, 0))
    assert (counts.committed, counts.charged) == (205.0, 135.0)
    assert board.deviation() is None


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


def test_a_decision_costs_the_same_at_any_length() -> None:
    spent, _, n = long_study(trials=10_000, workers=1000, repeats=True)
    assert n > 15_000
    # Two puts and three decisions an evaluation; generous, because machines are shared.
    assert max(spent) / 1000 < 5e-3
    assert sum(spent[10:]) / len(spent[10:]) < 2 * sum(spent[2:10]) / 8 + 0.2


def test_a_board_is_small() -> None:
    tracemalloc.start()
    try:
        _, board, n = long_study(trials=1_000, workers=100, repeats=False)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert board.counts().trials == 1_000
    assert used / n < 2000  # bytes an evaluation
