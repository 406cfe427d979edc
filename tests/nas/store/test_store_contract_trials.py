"""What every backend of the store must do, on SQLite and on a real PostgreSQL: trials."""

from __future__ import annotations

import pytest
from store_cases import SPEC, finished, new_study, new_trial

from nas.store import LeaseLost, Store, StoreError
from search_space.contract import EvalResult, Status
from search_space.errors import InputError


class TestTrials:
    def test_numbers_count_from_zero_in_each_study(self, store: Store) -> None:
        one, two = new_study(store), new_study(store)
        numbers = [new_trial(store, study)[0].number for study in (one, two, one, one)]
        assert numbers == [0, 0, 1, 2]

    def test_a_running_trial_reads_back_equal(self, store: Store) -> None:
        study = new_study(store)
        trial, evaluation = new_trial(store, study)
        assert trial.status is Status.RUNNING
        assert trial.result is None
        assert (trial.rung, trial.seeds, trial.bits_per_byte, trial.flops) == (None, 0, None, 0.0)
        assert (trial.spec, trial.key) == (SPEC, SPEC.key)
        assert store.trial(study.id, 0) == trial
        assert store.trials(study.id) == [trial]
        assert (evaluation.trial_id, evaluation.trial, evaluation.seed) == (trial.id, 0, 3)
        assert (evaluation.rung, evaluation.attempt, evaluation.losses) == (0, 1, 0)
        assert (evaluation.until_flops, evaluation.start_flops) == (1e12, 0.0)
        assert (evaluation.reserved, evaluation.flops) == (1e12, 0.0)
        assert evaluation.status is Status.RUNNING
        assert store.evaluation(evaluation.id) == evaluation
        assert store.evaluations(study.id) == [evaluation]
        assert store.trial_evaluations(trial.id) == [evaluation]

    def test_a_result_reads_back_equal(self, store: Store) -> None:
        study = new_study(store)
        trial, evaluation = new_trial(store, study)
        result = finished(evaluation)
        ended, measured = store.end_evaluation(result)
        assert store.result(evaluation.id) == result
        shown = EvalResult(**(vars(result) | {"windows": []}))  # of which a trial needs none
        assert ended.result == shown
        assert ended.status is Status.FINISHED
        assert (ended.rung, ended.seeds, ended.bits_per_byte) == (0, 1, 2.25)
        assert (ended.active_flops, ended.flops) == (4.5e5, 9e11)
        assert ended.ended_at is not None
        assert ended.ended_at >= trial.created_at
        assert store.trial(study.id, 0) == ended
        assert measured == store.evaluation(evaluation.id)
        assert (measured.status, measured.owner, measured.reserved) == (Status.FINISHED, "", 0.0)
        assert (measured.flops, measured.trunk_flops, measured.seconds) == (9e11, 6e11, 12.5)
        assert (measured.bits_per_byte, measured.bits_per_byte_se) == (2.25, 0.01)
        assert measured.ended_at == ended.ended_at

    @pytest.mark.parametrize(
        "status", [status for status in Status if status.ended and status is not Status.PAUSED]
    )
    def test_every_ending_settles_the_ledger(self, store: Store, status: Status) -> None:
        study = new_study(store)
        trial, evaluation = new_trial(store, study, flops=1e12)
        new_trial(store, study, flops=2e12)
        assert store.ledger(study.id).reserved == 3e12
        measure = 2.0 if status is Status.FINISHED else None
        store.end_evaluation(finished(evaluation, status=status, bits_per_byte=measure, flops=4e11))
        ledger = store.ledger(study.id)
        assert (ledger.budget, ledger.reserved, ledger.spent) == (1e13, 2e12, 4e11)
        assert ledger.left == 1e13 - 2e12 - 4e11
        assert store.trial(study.id, trial.number).status is status
        assert store.evaluation(evaluation.id).status is status

    def test_an_overspent_reservation_holds_nothing_back(self, store: Store) -> None:
        study = new_study(store)
        store.end_evaluation(finished(new_trial(store, study, flops=1e12)[1], flops=1.25e12))
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (0.0, 1.25e12)

    @pytest.mark.parametrize("flops", [float("nan"), float("inf"), -1.0])
    def test_unknown_flops_cost_the_whole_reservation(self, store: Store, flops: float) -> None:
        study = new_study(store)
        _, evaluation = new_trial(store, study, flops=1e12)
        ended, _ = store.end_evaluation(finished(evaluation, flops=flops))
        assert store.ledger(study.id).spent == 1e12
        assert ended.result is not None
        assert ended.result.flops == ended.flops == 1e12

    @pytest.mark.parametrize("measure", [None, float("nan"), float("inf")])
    def test_finished_without_a_measure_is_diverged(
        self, store: Store, measure: float | None
    ) -> None:
        _, evaluation = new_trial(store, new_study(store))
        ended, _ = store.end_evaluation(finished(evaluation, bits_per_byte=measure))
        assert ended.status is Status.DIVERGED
        assert ended.result is not None
        assert ended.result.bits_per_byte is None
        assert ended.bits_per_byte is None
        assert "bits_per_byte is" in ended.result.error

    def test_no_other_measure_is_stored_unless_finite(self, store: Store) -> None:
        nan, inf = float("nan"), float("inf")
        _, evaluation = new_trial(store, new_study(store))
        ended, _ = store.end_evaluation(
            finished(
                evaluation,
                bits_per_byte_se=nan,
                loss=inf,
                windows=[1.0, nan],
                active_flops=nan,
                optimizer_flops=nan,
                trunk_flops=inf,
                seconds=inf,
                activity=[0.5, nan],
                stats={"norms": [1.0, inf], "deep": {"x": nan}},
                error="line one\nline\0 two",
            )
        )
        result = store.result(evaluation.id)
        assert ended.status is Status.FINISHED
        assert (result.bits_per_byte_se, result.loss, result.active_flops) == (None, None, None)
        assert (result.optimizer_flops, result.seconds, result.activity) == (0.0, 0.0, [])
        assert (result.trunk_flops, result.windows) == (0.0, [])
        assert result.stats == {"norms": [1.0, None], "deep": {"x": None}}
        assert result.error == "line one line two"

    def test_an_evaluation_ends_once(self, store: Store) -> None:
        study = new_study(store)
        _, evaluation = new_trial(store, study)
        store.end_evaluation(finished(evaluation))
        with pytest.raises(LeaseLost, match="has ended"):
            store.end_evaluation(finished(evaluation, status=Status.FAILED, flops=1.0))
        assert store.trial(study.id, 0).status is Status.FINISHED
        assert store.ledger(study.id).spent == 9e11

    def test_what_is_no_ending_is_refused(self, store: Store) -> None:
        study = new_study(store)
        _, evaluation = new_trial(store, study)
        for status in (Status.RUNNING, Status.PAUSED):
            with pytest.raises(StoreError, match=f"{status} is not an ending"):
                store.end_evaluation(finished(evaluation, status=status))
        with pytest.raises(LeaseLost, match=r"evaluation 99 .* unknown"):
            store.end_evaluation(EvalResult(evaluation=99, status=Status.FAILED))
        assert store.trial(study.id, 0).status is Status.RUNNING

    def test_trials_are_found_by_status_and_number(self, store: Store) -> None:
        study = new_study(store)
        with pytest.raises(InputError, match="no trials yet"):
            store.trial(study.id, 0)
        (first, evaluation), (second, _) = new_trial(store, study), new_trial(store, study)
        store.end_evaluation(finished(evaluation))
        assert [t.id for t in store.trials(study.id)] == [first.id, second.id]
        assert [t.id for t in store.some_trials(study.id, [0])] == [first.id]
        assert [t.id for t in store.some_trials(study.id, [1, 0, 9])] == [first.id, second.id]
        with pytest.raises(InputError, match="no trial 2 in this study; it has 0 to 1"):
            store.trial(study.id, 2)

    def test_a_trial_needs_a_study_and_finite_flops(self, store: Store) -> None:
        study = new_study(store)
        for flops in (float("nan"), float("inf"), -1.0):
            with pytest.raises(StoreError, match="until_flops must be a finite number"):
                new_trial(store, study, flops=flops)
        with pytest.raises(StoreError, match="no study with id"):
            store.add_trial(99, SPEC, seed=0, source="x", params={}, until_flops=1.0, cost={})
        assert store.ledger(study.id).reserved == 0.0
        assert new_trial(store, study)[0].number == 0, "a refused trial used up a number"
        with pytest.raises(StoreError, match="no study with id"):
            store.ledger(99)

    def test_unknown_ids_are_refused(self, store: Store) -> None:
        study = new_study(store)
        for read in (store.evaluation, store.result):
            with pytest.raises(StoreError, match="no evaluation with id 99"):
                read(99)
        assert store.evaluations(99) == store.trial_evaluations(99) == []
        with pytest.raises(StoreError, match="no study with id 99"):
            store.claim(99, "me")
        with pytest.raises(StoreError, match=f"study {study.id} has no trial with id 99"):
            store.add_evaluation(study.id, 99, seed=0, rung=0, until_flops=1.0)
