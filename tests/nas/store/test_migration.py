"""A database of the former schema, one trial a training, is brought to this one and loses nothing.

`data/schema_0002.sql` was written by the version before: a study with six trials, and an empty one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from migration_tools import differences, frozen_database, restore
from sqlalchemy import create_engine, inspect, text

from nas.store import NeedsMigration, Store
from nas.store.migrate import HEAD, alembic_config
from search_space.contract import EvalResult, Progress, Status
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

FORMER = "0002"
STATUSES = ["finished", "diverged", "failed", "stopped", "running", "finished"]
TABLES = ("study", "trial", "result", "curve_point", "ledger_entry")  # parents first


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The former database as it was left."""
    with frozen_database(tmp_path, FORMER) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


@pytest.fixture
def former(empty_url: str, frozen: sqlite3.Connection) -> str:
    """The same on this database."""
    restore(empty_url, FORMER, frozen, TABLES)
    return empty_url


def test_a_reader_refuses_it_with_the_way_out_and_changes_nothing(former: str) -> None:
    with pytest.raises(
        NeedsMigration, match=rf"has schema {FORMER}, {HEAD} .* run: nas db upgrade"
    ):
        Store.open(former, create=False)
    engine = create_engine(former)
    assert "result" in inspect(engine).get_table_names()
    engine.dispose()


def test_the_tables_are_those_of_the_models(former: str) -> None:
    Store.upgrade(former).close()
    assert differences(former) == []


def test_every_trial_keeps_its_result_as_one_run_and_one_evaluation(
    former: str, frozen: sqlite3.Connection
) -> None:
    trials = frozen.execute("SELECT * FROM trial ORDER BY id").fetchall()
    results = {row["trial_id"]: row for row in frozen.execute("SELECT * FROM result")}
    with Store.upgrade(former) as store:
        study = store.study("old")
        found = store.trials(study.id)
        assert [trial.id for trial in found] == [row["id"] for row in trials]
        assert [trial.status for trial in found] == STATUSES == [row["status"] for row in trials]
        for trial, row in zip(found, trials, strict=True):
            (evaluation,) = store.trial_evaluations(trial.id)
            assert (trial.number, trial.key) == (row["number"], row["key"])
            assert trial.spec.key == trial.key
            assert trial.created_at.replace(tzinfo=None).isoformat(" ") == row["created_at"]
            assert evaluation.id == trial.id, "what refers to a trial refers to its evaluation"
            assert (evaluation.rung, evaluation.seed) == (study.top, row["seed"])
            assert (evaluation.attempt, evaluation.owner) == (1, "")
            assert evaluation.status == row["status"]
            assert (evaluation.until_flops, evaluation.start_flops) == (row["train_flops"], 0.0)
            assert evaluation.created_at == trial.created_at
            assert evaluation.ended_at == trial.ended_at
            assert evaluation.reserved == (30000000.0 if row["status"] == "running" else 0.0)
            if (former_result := results.get(trial.id)) is None:
                assert (trial.result, trial.ended_at, trial.flops) == (None, None, 0.0)
                continue
            assert trial.result is not None
            for name in set(former_result.keys()) - {"trial_id", "activity", "stats"}:
                assert getattr(trial.result, name) == former_result[name], name
            assert (trial.result.activity, trial.result.stats) == ([1.0], {"routing": {}})
            assert store.result(trial.id) == trial.result
            assert trial.flops == evaluation.flops == former_result["flops"]
            done = row["status"] == "finished"
            assert (trial.rung, trial.seeds) == ((0, 1) if done else (None, 0))
            assert trial.bits_per_byte == former_result["bits_per_byte"]
            assert trial.active_flops == former_result["active_flops"]
            assert (trial.result.checkpoint_digest == "d" * 64) == done


def test_studies_curves_and_the_account_are_kept(former: str, frozen: sqlite3.Connection) -> None:
    points = frozen.execute("SELECT * FROM curve_point ORDER BY trial_id, step").fetchall()
    spent, held = (
        frozen.execute(f"SELECT SUM({what}) FROM ledger_entry").fetchone()[0]
        for what in (
            "CASE kind WHEN 'spend' THEN flops ELSE 0 END",
            "CASE kind WHEN 'reserve' THEN flops ELSE -flops END",
        )
    )
    with Store.upgrade(former) as store:
        study, empty = store.study("old"), store.study("empty")
        assert [(s.rungs, s.deviation, s.owner) for s in (study, empty)] == [(1, None, "")] * 2
        assert (study.uid, len(empty.uid)) == ("75782e8fd6064957bd8ae2662aa9983d", 32)
        kept = [p for each in store.evaluations(study.id) for p in store.curve(each.id)]
        assert kept == [
            Progress(
                evaluation=row["trial_id"],
                **{name: row[name] for name in ("step", "steps", "flops", "loss", "seconds")},
            )
            for row in points
        ]
        ledger = store.ledger(study.id)
        assert (ledger.spent, ledger.reserved) == (spent, held) == (125000011.0, 30000000.0)
        assert (store.ledger(empty.id).spent, store.ledger(empty.id).reserved) == (0.0, 0.0)
        with store._engine.connect() as connection:
            lines = connection.execute(
                text("SELECT id, evaluation_id, kind, flops FROM ledger_entry ORDER BY id")
            ).all()
        former_lines = frozen.execute("SELECT id, trial_id, kind, flops FROM ledger_entry")
        assert [tuple(line) for line in lines] == [tuple(line) for line in former_lines]


def test_a_study_goes_on_with_new_rows_after_the_old_ones(former: str) -> None:
    with Store.upgrade(former) as store:
        study = store.study("old")
        hold = store.hold_study(study.id, "me")
        claimed = [store.claim(study.id, "me", hold) for _ in range(2)]
        assert [one.trial for one in claimed] == [3, 4], "the stopped and the running one"
        # 5 M FLOPs of the stopped one are left to spend.
        assert [one.reserved for one in claimed] == [4999997.0, 30000000.0]
        assert store.claim(study.id, "me", hold) is None
        for one in claimed:
            result = EvalResult(
                evaluation=one.id, attempt=2, status=Status.FINISHED, bits_per_byte=2.0, flops=3e7
            )
            trial, _ = store.end_evaluation(result)
            assert (trial.status, trial.bits_per_byte) == (Status.FINISHED, 2.0)
        trial, evaluation = store.add_trial(
            study.id, FFNSpec(d_ff=8), seed=0, source="x", params={}, until_flops=1.0, cost={},
            hold=hold,
        )  # fmt: skip
        assert (trial.id, trial.number, evaluation.id) == (7, 6, 7)
        repeat = store.add_evaluation(study.id, 1, seed=1, rung=0, until_flops=1.0, hold=hold)
        assert repeat.id == 8
        assert store.create_study("next", {}, 0, 1.0, ["bits_per_byte"]).id == 3


def test_it_can_be_put_back_while_it_has_no_more_than_before(
    former: str, frozen: sqlite3.Connection
) -> None:
    Store.upgrade(former).close()
    engine = create_engine(former)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), FORMER)
        for name in TABLES:
            columns = [column["name"] for column in inspect(connection).get_columns(name)]
            kept = frozen.execute(f"SELECT * FROM {name}")
            former_columns = [column[0] for column in kept.description]
            assert sorted(columns) == sorted(former_columns), name
            plain = [c for c in former_columns if not c.endswith("_at")]
            plain = [c for c in plain if c not in ("config", "facts", "objectives", "spec", "cost",
                                                   "params", "activity", "stats")]  # fmt: skip
            rows = connection.execute(text(f"SELECT {', '.join(plain)} FROM {name}")).all()
            wanted = frozen.execute(f"SELECT {', '.join(plain)} FROM {name}").fetchall()
            assert sorted(map(tuple, rows)) == sorted(map(tuple, wanted)), name
    engine.dispose()


def test_repeats_cannot_be_put_back(former: str) -> None:
    with Store.upgrade(former) as store:
        store.add_evaluation(1, 1, seed=1, rung=0, until_flops=1.0)
    engine = create_engine(former)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # as an upgrade: all versions or none
        with pytest.raises(RuntimeError, match="restore a copy"):
            command.downgrade(alembic_config(connection), FORMER)
    engine.dispose()
    with Store.open(former, create=False) as store:
        assert len(store.trial_evaluations(1)) == 2
