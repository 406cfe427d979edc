"""A database of the former schema, without logs, gets room for them and loses nothing.

`data/schema_0003.sql` was written by the version before: a held study of two rungs with a
promotion, a repeat, and trials that diverged, lost a worker, were stopped, run; and an empty one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from migration_tools import differences, frozen_database, restore
from sqlalchemy import create_engine, inspect, text

from nas.store import EvaluationLog, NeedsMigration, Store
from nas.store.migrate import HEAD, VERSION_TABLE, alembic_config
from search_space.contract import LogLine, Status

pytestmark = pytest.mark.slow

FORMER = "0003"
TABLES = ("study", "trial", "run", "evaluation", "curve_point", "ledger_entry")  # parents first


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The former database as it was left."""
    with frozen_database(tmp_path, FORMER) as connection:
        yield connection


@pytest.fixture
def former(empty_url: str, frozen: sqlite3.Connection) -> str:
    """The same on this database."""
    restore(empty_url, FORMER, frozen, TABLES)
    return empty_url


def rows(url: str) -> dict[str, list]:
    """All rows of the former tables."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            name: [
                dict(row._mapping)
                for row in connection.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2"))
            ]
            for name in TABLES
        }
    engine.dispose()
    return found


def test_a_reader_refuses_it_with_the_way_out(former: str) -> None:
    with pytest.raises(NeedsMigration, match=rf"schema {FORMER}, {HEAD} .* run: nas db upgrade"):
        Store.open(former, create=False)


def test_it_gets_an_empty_table_and_keeps_every_row(former: str) -> None:
    before = rows(former)
    assert [len(each) for each in before.values()] == [2, 4, 5, 6, 12, 16]
    Store.upgrade(former).close()
    assert rows(former) == before
    assert differences(former) == []
    with Store.open(former, create=False) as store:
        study = store.study("rungs")
        ids = [each.id for each in store.evaluations(study.id)]
        assert store.log_lines(ids, 9) == dict.fromkeys(ids, EvaluationLog((), 0))
        assert [trial.status for trial in store.trials(study.id)] == [
            Status.FINISHED, Status.DIVERGED, Status.STOPPED, Status.RUNNING,
        ]  # fmt: skip


def test_what_goes_on_in_it_is_logged_and_can_be_taken_away(former: str) -> None:
    before = rows(former)
    with Store.upgrade(former) as store:
        line = LogLine(
            evaluation=6, number=1, at=datetime(2026, 1, 2, tzinfo=UTC), level="info", text="on"
        )
        store.add_progress([], [line])
        assert store.log_lines([6], 9)[6].lines == (line,)
    engine = create_engine(former)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), FORMER)
        assert "log_line" not in inspect(connection).get_table_names()
        assert connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")) == FORMER
    engine.dispose()
    after = rows(former)
    for evaluation in (*before["evaluation"], *after["evaluation"]):
        del evaluation["lease_until"]  # which the line has renewed
    assert after == before
