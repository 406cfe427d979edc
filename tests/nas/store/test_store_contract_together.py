"""What every backend of the store must do: several stores at once, and the schema."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from store_cases import finished, new_study, new_trial

from nas.store import Facts, LeaseLost, Store
from search_space.errors import InputError

pytestmark = pytest.mark.slow


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
