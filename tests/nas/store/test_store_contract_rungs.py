"""What every backend of the store must do, on SQLite and on a real PostgreSQL: rungs, curves."""

from __future__ import annotations

import pytest
from store_cases import at_rung, ending, finished, new_study, new_trial

from nas.store import EvaluationRecord, LeaseLost, Store, StoreError
from search_space.contract import Progress, Status


class TestRungs:
    def test_a_run_goes_on_at_the_next_rung_and_pays_for_what_is_new(self, store: Store) -> None:
        study = new_study(store, rungs=3)
        trial, low = new_trial(store, study, flops=1e11)
        store.end_evaluation(finished(low, flops=1.1e11, trunk_flops=7e10))
        middle = at_rung(store, study, trial, 1, 3e11, start_flops=7e10)
        assert (middle.trial_id, middle.seed, middle.rung) == (trial.id, 3, 1)
        assert middle.reserved == store.ledger(study.id).reserved == 3e11 - 7e10
        assert store.trial(study.id, 0).status is Status.RUNNING
        ended, _ = store.end_evaluation(finished(middle, flops=2e11, bits_per_byte=2.0))
        assert (ended.status, ended.rung, ended.bits_per_byte) == (Status.PAUSED, 1, 2.0)
        assert ended.flops == store.ledger(study.id).spent == 1.1e11 + 2e11
        assert [e.id for e in store.trial_evaluations(trial.id)] == [low.id, middle.id]
        assert store.evaluations(study.id)[1:] == [store.evaluation(middle.id)]

    def test_a_run_is_brought_to_a_rung_once(self, store: Store) -> None:
        study = new_study(store, rungs=2)
        trial, evaluation = new_trial(store, study)
        with pytest.raises(StoreError, match="brought to rung 0 before"):
            at_rung(store, study, trial, 0, 1e12)
        store.end_evaluation(finished(evaluation))
        with pytest.raises(StoreError, match="brought to rung 0 before"):
            at_rung(store, study, trial, 0, 1e12)
        assert store.ledger(study.id).reserved == 0.0

    def test_what_a_rung_costs_must_make_sense(self, store: Store) -> None:
        study = new_study(store, rungs=2)
        trial, _ = new_trial(store, study)
        with pytest.raises(StoreError, match="start_flops is at most until_flops"):
            at_rung(store, study, trial, 1, 1e12, start_flops=2e12)
        with pytest.raises(StoreError, match="start_flops must be a finite number"):
            at_rung(store, study, trial, 1, 1e12, start_flops=float("nan"))
        assert len(store.evaluations(study.id)) == 1

    def test_repeats_give_a_mean_and_the_deviation_of_one_seed(self, store: Store) -> None:
        study = new_study(store, rungs=2)
        assert study.deviation is None

        def repeated(*bits: float) -> None:
            trial, first = new_trial(store, study, rung=1)
            store.end_evaluation(finished(first, bits_per_byte=bits[0], active_flops=100.0))
            for seed, each in enumerate(bits[1:], start=50):
                more = at_rung(store, study, trial, 1, 1e12, seed=seed)
                assert store.trial(study.id, trial.number).status is Status.FINISHED
                store.end_evaluation(finished(more, bits_per_byte=each, active_flops=200.0))

        repeated(2.0, 2.5)
        first = store.trial(study.id, 0)
        assert (first.seeds, first.bits_per_byte, first.active_flops) == (2, 2.25, 150.0)
        assert first.flops == 2 * 9e11
        assert store.study("demo").deviation == pytest.approx(0.125**0.5)
        repeated(1.0)
        assert store.study("demo").deviation == pytest.approx(0.125**0.5)
        repeated(3.0, 3.0, 3.3)
        assert store.trial(study.id, 2).bits_per_byte == pytest.approx(3.1)
        # (2 x 0.25^2 + 2 x 0.1^2 + 0.2^2) over 1 + 2 degrees of freedom.
        assert store.study("demo").deviation == pytest.approx((0.185 / 3) ** 0.5)

    def test_measured_runs_come_by_trial_and_seed_with_their_windows(self, store: Store) -> None:
        study = new_study(store, rungs=2)
        for number in range(3):
            trial, low = new_trial(store, study, flops=1e11)
            store.end_evaluation(finished(low, windows=[1.0, number]))
            if number < 2:
                for seed in (3, 1) if number else (3,):
                    top = at_rung(store, study, trial, 1, 1e12, seed=seed)
                    store.end_evaluation(finished(top, windows=[2.0, seed], bits_per_byte=2.0))
        running, _ = new_trial(store, study)
        every = store.measured_runs(study.id, [0, 1, 2, running.number])
        assert [(r.trial, r.seed, r.until_flops, tuple(r.windows)) for r in every] == [
            (0, 3, 1e11, (1.0, 0.0)),
            (0, 3, 1e12, (2.0, 3.0)),
            (1, 1, 1e12, (2.0, 1.0)),
            (1, 3, 1e11, (1.0, 1.0)),
            (1, 3, 1e12, (2.0, 3.0)),
            (2, 3, 1e11, (1.0, 2.0)),
        ]
        top = store.measured_runs(study.id, [1], rung=1)
        assert [(r.trial, r.seed, r.bits_per_byte, r.bits_per_byte_se) for r in top] == [
            (1, 1, 2.0, 0.01), (1, 3, 2.0, 0.01),
        ]  # fmt: skip
        repeated = store.repeated_runs(study.id, 1)
        assert [(r.trial, r.seed, r.windows) for r in repeated] == [(1, 1, ()), (1, 3, ())]
        assert store.measured_runs(study.id, []) == []
        assert store.measured_runs(new_study(store, "other").id, [0]) == []

    def test_seeds_below_the_top_leave_the_deviation_alone(self, store: Store) -> None:
        study = new_study(store, rungs=2)
        trial, first = new_trial(store, study)
        store.end_evaluation(finished(first))
        ended, _ = store.end_evaluation(finished(at_rung(store, study, trial, 0, 1e12, seed=9)))
        assert ended.seeds == 2
        assert store.study("demo").deviation is None

    def test_a_stopped_evaluation_is_charged_for_each_flop_once(self, store: Store) -> None:
        study = new_study(store)
        _, evaluation = new_trial(store, study, flops=1e12)
        store.end_evaluation(ending(evaluation, Status.STOPPED, 3e11))
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (0.0, 3e11)
        again = store.claim(study.id, "me")
        assert (again.reserved, again.flops) == (7e11, 3e11)
        assert (again.error, again.ended_at) == ("", None)
        assert store.trial(study.id, 0).status is Status.RUNNING
        assert store.trial(study.id, 0).ended_at is None
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (7e11, 3e11)
        # From a checkpoint before the stop: less than was charged costs nothing again.
        store.end_evaluation(ending(again, Status.STOPPED, 2e11))
        assert store.ledger(study.id).spent == 3e11
        again = store.claim(study.id, "me")
        store.end_evaluation(finished(again, flops=1.1e12))
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (0.0, 1.1e12)
        assert store.trial(study.id, 0).flops == 1.1e12


class TestCurves:
    def test_points_come_back_by_step_and_once(self, store: Store) -> None:
        study = new_study(store)
        first, second = (new_trial(store, study)[1] for _ in range(2))

        def point(evaluation: EvaluationRecord, step: int, loss: float = 5.5) -> Progress:
            return Progress(
                evaluation=evaluation.id,
                step=step,
                steps=9,
                flops=1e9 * step,
                loss=loss,
                seconds=0.5,
            )

        store.add_progress([point(first, 2), point(first, 1), point(second, 1)])
        store.add_progress([point(first, 2), point(first, 3), point(first, 4, float("nan"))])
        store.add_progress([])
        expected = [point(first, step) for step in (1, 2, 3)]
        assert store.curve(first.id) == expected
        assert store.curve(second.id) == [point(second, 1)]
        assert store.curve(99) == []

    def test_a_late_point_is_refused_and_keeps_no_other_out(self, store: Store) -> None:
        study = new_study(store)
        ended, running = (new_trial(store, study)[1] for _ in range(2))
        store.end_evaluation(finished(ended))
        values = {"step": 1, "steps": 1, "flops": 1.0, "loss": 1.0, "seconds": 1.0}
        unknown, late, good = (
            Progress(evaluation=id, **values) for id in (99, ended.id, running.id)
        )
        with pytest.raises(LeaseLost, match=r"evaluation 99 .* unknown"):
            store.add_progress([unknown])
        with pytest.raises(LeaseLost, match=f"evaluation {ended.id} .* has ended"):
            store.add_progress([late, good])
        assert (store.curve(ended.id), store.curve(running.id)) == ([], [good])
