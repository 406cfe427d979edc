"""What a study does next, on made-up records: each rule of the main phase."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scheduler_cases import (
    ENDINGS,
    FLAT,
    ask,
    deviation,
    evaluation,
    finished,
    make_plan,
    running,
)

from nas.search.decisions import Done, Promote, Repeat, Start, TakeUp, Wait
from nas.search.rungs import expected_flops, rung_flops
from nas.search.scheduler import Board
from nas.store.records import EvaluationRecord
from search_space.contract import Status

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
    assert deviation(board) is None
