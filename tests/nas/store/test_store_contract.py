"""What every backend of the store must do, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from store_cases import SPEC, at_rung, ending, finished, new_study, new_trial

from nas.store import EvaluationRecord, Facts, LeaseLost, Store, StoreError, StudyState
from search_space.contract import EvalResult, Progress, Status
from search_space.errors import InputError


class TestStudies:
    def test_a_study_reads_back_equal_after_reopening(self, url: str) -> None:
        with Store.open(url) as store:
            study = new_study(store)
        with Store.open(url, create=False) as reader:
            assert reader.study("demo") == study
        assert study.state is StudyState.RUNNING
        assert study.created_at.utcoffset() is not None
        assert study.ended_at is None

    def test_a_taken_name_gets_a_number(self, store: Store) -> None:
        names = [new_study(store).name for _ in range(3)]
        assert names == ["demo", "demo-2", "demo-3"]
        long = "x" * 64
        assert [new_study(store, long).name for _ in range(2)] == [long, "x" * 62 + "-2"]

    def test_an_exact_name_must_be_new(self, store: Store) -> None:
        store.check_name("demo")
        new_study(store, exact=True)
        with pytest.raises(InputError, match="'demo' exists; choose another"):
            new_study(store, exact=True)
        with pytest.raises(InputError, match="'demo' exists; choose another"):
            store.check_name("demo")
        with pytest.raises(InputError, match="1 to 64 letters"):
            store.check_name("a b")

    @pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "..", "-x", "é", "a\n"])
    def test_an_illegal_name_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(InputError, match="1 to 64 letters"):
            new_study(store, name)

    @pytest.mark.parametrize("budget", [0.0, -1.0, float("inf"), float("nan")])
    def test_a_budget_is_finite_and_above_zero(self, store: Store, budget: float) -> None:
        with pytest.raises(InputError, match=r"budget in FLOPs must be (above 0|a finite number)"):
            new_study(store, budget_flops=budget)

    def test_a_seed_fits_in_64_bits(self, store: Store) -> None:
        assert new_study(store, seed=2**63 - 1).seed == 2**63 - 1
        with pytest.raises(InputError, match="64 bits"):
            new_study(store, seed=2**63)

    def test_studies_come_newest_first(self, store: Store) -> None:
        with pytest.raises(InputError, match="no studies yet; start one with: nas launch"):
            store.study(None)
        for name in ("one", "two"):
            new_study(store, name)
        assert [study.name for study in store.studies()] == ["two", "one"]
        assert store.study(None).name == "two"

    def test_an_unknown_study_names_the_nearest(self, store: Store) -> None:
        new_study(store, "prose")
        with pytest.raises(InputError, match="did you mean 'prose'"):
            store.study("pose")

    def test_facts_merge_and_a_state_sets_the_end(self, store: Store) -> None:
        study = new_study(store)
        first = Facts(machine="a", ngram_bits_per_byte={"3": 2.5}, more={"x": 1})
        store.update_study(study.id, facts=first)
        store.update_study(study.id, facts=Facts(machine="b", more={"y": None}))
        ended = store.update_study(study.id, state=StudyState.STOPPED)
        assert ended == store.study("demo")
        assert ended.facts == Facts(
            machine="b", ngram_bits_per_byte={"3": 2.5}, more={"x": 1, "y": None}
        )
        assert ended.state is StudyState.STOPPED
        assert ended.ended_at is not None
        assert ended.ended_at >= study.created_at
        again = store.update_study(study.id, state=StudyState.RUNNING)
        assert again.ended_at is None
        with pytest.raises(StoreError, match="no study with id 99"):
            store.update_study(99, facts=Facts(machine="a"))


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
        assert store.evaluations(study.id) == store.running_evaluations(study.id) == [evaluation]
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
        assert store.running_evaluations(study.id) == []

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
        assert [t.id for t in store.trials(study.id, [Status.RUNNING])] == [second.id]
        assert [t.id for t in store.trials(study.id, [Status.FINISHED])] == [first.id]
        assert store.trials(study.id, []) == []
        assert [t.id for t in store.some_trials(study.id, [0])] == [first.id]
        assert [t.id for t in store.some_trials(study.id, since=1)] == [second.id]
        assert [t.id for t in store.some_trials(study.id, [0], since=1)] == [first.id, second.id]
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
        assert store.evaluations(study.id, since=middle.id) == [store.evaluation(middle.id)]

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
        assert store.curves(study.id) == {first.id: expected, second.id: [point(second, 1)]}
        assert store.curves(new_study(store).id) == {}

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
        assert store.curves(study.id) == {running.id: [good]}


class TestConcurrency:
    def test_threads_and_stores_get_distinct_names_and_numbers(self, url: str) -> None:
        n, errors = 8, []
        study = None
        with Store.open(url) as one, Store.open(url) as two:
            study = new_study(one, "shared")

            def work(store: Store) -> None:
                try:
                    for _ in range(n):
                        new_study(store)
                        trial, evaluation = new_trial(store, study, flops=1e9)
                        store.end_evaluation(finished(evaluation, flops=1e9))
                        store.update_study(study.id, facts=Facts(more={f"{trial.number}": True}))
                except Exception as error:  # the main thread reports it
                    errors.append(error)

            threads = [threading.Thread(target=work, args=(store,)) for store in (one, one, two)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            numbers = [trial.number for trial in one.trials(study.id)]
            assert numbers == list(range(3 * n))
            assert len(one.studies()) == 3 * n + 1
            assert one.ledger(study.id).spent == 3 * n * 1e9
            assert set(one.study("shared").facts.more) == {str(number) for number in numbers}

    def test_an_evaluation_is_ended_by_one_of_two(self, store: Store) -> None:
        study = new_study(store)
        for _ in range(5):
            (_, evaluation), outcomes = new_trial(store, study), []
            barrier = threading.Barrier(2)

            def end(evaluation=evaluation, outcomes=outcomes, barrier=barrier) -> None:
                barrier.wait()
                try:
                    outcomes.append(store.end_evaluation(finished(evaluation))[0].status)
                except LeaseLost:
                    outcomes.append("refused")

            threads = [threading.Thread(target=end) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(outcomes) == ["finished", "refused"]
        assert store.ledger(study.id).spent == 5 * 9e11


class TestSchema:
    def test_migrations_make_the_models_tables(self, empty_url: str) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        from nas.store.migrate import VERSION_TABLE
        from nas.store.models import Base

        Store.open(empty_url).close()
        engine = create_engine(empty_url)
        with engine.connect() as connection:
            options = {"compare_type": True, "version_table": VERSION_TABLE}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, Base.metadata) == []
        engine.dispose()

    def test_stores_opened_at_once_migrate_once(self, empty_url: str) -> None:
        stores, errors = [], []

        def work() -> None:
            try:
                stores.append(Store.open(empty_url))
            except Exception as error:  # the main thread reports it
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        for store in stores:
            assert store.studies() == []
            store.close()

    def test_a_reader_needs_the_tables(self, empty_url: str) -> None:
        if empty_url.startswith("sqlite"):
            Path(empty_url.removeprefix("sqlite:///")).touch()
        with pytest.raises(InputError, match="no studies yet; start one with"):
            Store.open(empty_url, create=False)

    def test_a_newer_schema_is_refused(self, empty_url: str) -> None:
        from nas.store.migrate import HEAD, VERSION_TABLE

        Store.open(empty_url).close()
        engine = create_engine(empty_url)
        set_version = text(f"UPDATE {VERSION_TABLE} SET version_num = :version")
        with engine.begin() as connection:
            connection.execute(set_version, {"version": "9999"})
        with pytest.raises(InputError, match=r"has schema 9999.*upgrade ffn-nas"):
            Store.open(empty_url)
        with engine.begin() as connection:
            connection.execute(set_version, {"version": HEAD})
        engine.dispose()
        Store.open(empty_url, create=False).close()

    def test_an_older_schema_is_refused_by_a_reader(self, empty_url: str) -> None:
        from nas.store.migrate import HEAD, VERSION_TABLE

        Store.open(empty_url).close()
        engine = create_engine(empty_url)
        set_version = text(f"UPDATE {VERSION_TABLE} SET version_num = :version")
        with engine.begin() as connection:
            connection.execute(set_version, {"version": "0000"})
        with pytest.raises(
            InputError, match=f"has schema 0000, {HEAD} is needed; run: nas db upgrade"
        ):
            Store.open(empty_url, create=False)
        with engine.begin() as connection:
            connection.execute(set_version, {"version": HEAD})
        engine.dispose()


def test_a_file_that_somebody_else_has_open_is_not_removed(tmp_path):
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url) as refused:
        with Store.open(url) as other:
            refused.discard_if_unused()
            study = other.create_study("a", {}, 0, 1e9, ["bits_per_byte"])
            assert other.study("a") == study
        with Store.open(url, create=False) as reader:
            assert reader.study("a") == study


def test_a_file_that_nobody_used_is_removed_whole(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as refused:
        refused.discard_if_unused()
    assert list(tmp_path.iterdir()) == []
