"""A design and its training are two things: runs, and evaluations that have leases and results.

A trial of the former schema becomes one run with one evaluation, at the only rung there was.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)
# What both a result of the former schema and an evaluation have.
OF_RESULT: dict[str, tuple[Any, bool]] = {  # its type, and whether it may be missing
    "error": (sa.Text, False),
    "bits_per_byte": (sa.Double, True),
    "bits_per_byte_se": (sa.Double, True),
    "loss": (sa.Double, True),
    "steps": (sa.BigInteger, False),
    "tokens": (sa.BigInteger, False),
    "flops": (sa.Double, False),
    "optimizer_flops": (sa.Double, False),
    "active_flops": (sa.Double, True),
    "activity": (sa.JSON, False),
    "stats": (sa.JSON, False),
    "seconds": (sa.Double, False),
    "checkpoint": (sa.Text, False),
    "checkpoint_digest": (sa.Text, False),
    "backend": (sa.Text, False),
}
KEPT = ", ".join(OF_RESULT)

MORE_THAN_BEFORE = (
    "SELECT COUNT(*) FROM study WHERE rungs > 1 OR id IN (SELECT study_id FROM trial "
    "WHERE (SELECT COUNT(*) FROM run WHERE run.trial_id = trial.id) > 1)"
)


def _column(name: str, kind: Any, nullable: bool = False, default: str | None = None) -> Any:
    return sa.Column(name, kind, nullable=nullable, server_default=default)


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target}"
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def _of_study() -> tuple[Any, ...]:
    return (
        _column("rungs", sa.Integer, default="1"),
        _column("deviation", sa.Double, nullable=True),
        _column("spent_flops", sa.Double, default="0"),
        _column("owner", sa.Text, default=""),
        _column("owner_since", TIME, nullable=True),
        _column("lease_until", sa.Double, default="0"),
        _column("fence", sa.BigInteger, default="0"),
        _column("asked", sa.String(16), default=""),
    )


def _of_trial() -> tuple[Any, ...]:
    return (
        _column("rung", sa.Integer, nullable=True),
        _column("seeds", sa.Integer, default="0"),
        _column("bits_per_byte", sa.Double, nullable=True),
        _column("active_flops", sa.Double, nullable=True),
        _column("flops", sa.Double, default="0"),
        _column("evaluation_id", ROW_ID, nullable=True),
    )


def upgrade() -> None:
    """Split each trial of the former schema into a design, a run and an evaluation."""
    # Columns are added and dropped one by one: a batch operation would make SQLite's tables anew,
    # and dropping the old ones would delete every row that refers to them.
    _widen()
    _create_run()
    _create_evaluation()
    _fill()
    _curve_points("evaluation")
    _ledger_entries("evaluation")
    op.drop_table("result")
    op.drop_column("trial", "seed")
    op.drop_column("trial", "train_flops")


def downgrade() -> None:
    """Put back a database whose trials have one training each, as the former schema had."""
    connection = op.get_bind()
    if connection.scalar(sa.text(MORE_THAN_BEFORE)):
        raise RuntimeError("a database with rungs or repeats cannot be put back; restore a copy")
    _restore_trial()
    _restore_result()
    _curve_points("trial")
    _ledger_entries("trial")
    op.drop_table("evaluation")
    op.drop_table("run")
    for column in _of_study():
        op.drop_column("study", column.name)


def _widen() -> None:
    for table, columns in (("study", _of_study()), ("trial", _of_trial())):
        for column in columns:
            op.add_column(table, column)
    op.create_index("ix_trial_study_id_seeds", "trial", ["study_id", "seeds"])


def _create_run() -> None:
    op.create_table(
        "run",
        _column("id", ROW_ID),
        _column("trial_id", ROW_ID),
        _column("seed", sa.BigInteger),
        _column("created_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        _reference("run", "trial_id", "trial"),
        sa.UniqueConstraint("trial_id", "seed", name="uq_run_trial_id_seed"),
    )


def _create_evaluation() -> None:
    op.create_table(
        "evaluation",
        _column("id", ROW_ID),
        _column("study_id", ROW_ID),
        _column("run_id", ROW_ID),
        _column("rung", sa.Integer),
        _column("attempt", sa.Integer),
        _column("losses", sa.Integer),
        _column("owner", sa.Text),
        _column("lease_until", sa.Double),
        _column("claimed_at", TIME, nullable=True),
        _column("status", sa.String(16)),
        _column("until_flops", sa.Double),
        _column("start_flops", sa.Double),
        _column("reserved", sa.Double),
        _column("created_at", TIME),
        _column("ended_at", TIME, nullable=True),
        _column("error", sa.Text, default=""),
        _column("bits_per_byte", sa.Double, nullable=True),
        _column("bits_per_byte_se", sa.Double, nullable=True),
        _column("loss", sa.Double, nullable=True),
        _column("windows", sa.LargeBinary),
        _column("steps", sa.BigInteger),
        _column("tokens", sa.BigInteger),
        _column("flops", sa.Double),
        _column("optimizer_flops", sa.Double),
        _column("trunk_flops", sa.Double),
        _column("active_flops", sa.Double, nullable=True),
        _column("activity", sa.JSON),
        _column("stats", sa.JSON),
        _column("seconds", sa.Double),
        _column("checkpoint", sa.Text, default=""),
        _column("checkpoint_digest", sa.Text, default=""),
        _column("backend", sa.Text, default=""),
        sa.PrimaryKeyConstraint("id", name="pk_evaluation"),
        _reference("evaluation", "study_id", "study"),
        _reference("evaluation", "run_id", "run"),
        sa.UniqueConstraint("run_id", "rung", name="uq_evaluation_run_id_rung"),
    )
    op.create_index("ix_evaluation_study_id_status", "evaluation", ["study_id", "status"])


def _fill() -> None:
    """One run and one evaluation a trial, with the trial's id: what referred to it still does."""
    connection = op.get_bind()
    former = ", ".join(f"result.{name}" for name in KEPT.split(", "))
    binary = "''" if connection.dialect.name == "postgresql" else "x''"
    statements = (
        "INSERT INTO run (id, trial_id, seed, created_at) "
        "SELECT id, id, seed, created_at FROM trial",
        # An evaluation that ended has what it was measured at; another has what a new one has.
        f"INSERT INTO evaluation (id, study_id, run_id, rung, attempt, losses, owner, lease_until, "
        f"status, until_flops, start_flops, reserved, created_at, ended_at, windows, trunk_flops, "
        f"{KEPT}) SELECT trial.id, study_id, trial.id, 0, 1, 0, '', 0, status, train_flops, 0, "
        f"0, created_at, ended_at, {binary}, 0, {former} "
        "FROM trial JOIN result ON result.trial_id = trial.id",
        f"INSERT INTO evaluation (id, study_id, run_id, rung, attempt, losses, owner, lease_until, "
        f"status, until_flops, start_flops, reserved, created_at, ended_at, windows, trunk_flops, "
        f"steps, tokens, flops, optimizer_flops, activity, stats, seconds) "
        f"SELECT id, study_id, id, 0, 1, 0, '', 0, status, train_flops, 0, train_flops, "
        f"created_at, ended_at, {binary}, 0, 0, 0, 0, 0, '[]', '{{}}', 0 FROM trial "
        "WHERE id NOT IN (SELECT trial_id FROM result)",
        "UPDATE trial SET evaluation_id = result.trial_id, flops = result.flops, "
        "bits_per_byte = result.bits_per_byte, active_flops = result.active_flops "
        "FROM result WHERE result.trial_id = trial.id",
        "UPDATE study SET spent_flops = COALESCE((SELECT SUM(flops) FROM ledger_entry "
        "WHERE ledger_entry.study_id = study.id AND kind = 'spend'), 0)",
        "UPDATE trial SET rung = 0, seeds = 1 WHERE status = 'finished'",
        "UPDATE trial SET bits_per_byte = NULL, active_flops = NULL WHERE status <> 'finished'",
    )
    for statement in statements:
        connection.execute(sa.text(statement))
    for table in ("run", "evaluation"):
        _count_on(table)


def _curve_points(owner: str) -> None:
    """Make the table anew, with points of `owner`: trials in the former schema, or evaluations."""
    _set_aside("curve_point", owner)
    op.create_table(
        "curve_point",
        sa.Column(f"{owner}_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger, autoincrement=False, nullable=False),
        _column("steps", sa.BigInteger),
        _column("flops", sa.Double),
        _column("loss", sa.Double),
        _column("seconds", sa.Double),
        sa.PrimaryKeyConstraint(f"{owner}_id", "step", name="pk_curve_point"),
        _reference("curve_point", f"{owner}_id", owner),
    )
    _take_back("curve_point", f"{owner}_id", "step, steps, flops, loss, seconds")


def _ledger_entries(owner: str) -> None:
    """Make the table anew, with lines about `owner`."""
    _set_aside("ledger_entry", owner)
    op.create_table(
        "ledger_entry",
        _column("id", ROW_ID),
        _column("study_id", ROW_ID),
        _column(f"{owner}_id", ROW_ID),
        _column("kind", sa.String(16)),
        _column("flops", sa.Double),
        _column("created_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_entry"),
        _reference("ledger_entry", "study_id", "study"),
        _reference("ledger_entry", f"{owner}_id", owner),
    )
    op.create_index("ix_ledger_entry_study_id", "ledger_entry", ["study_id"])
    _take_back("ledger_entry", f"{owner}_id", "id, study_id, kind, flops, created_at")
    _count_on("ledger_entry")


def _set_aside(table: str, owner: str) -> None:
    """Copy a table's rows with their `owner` and drop it, so that a new one can have its names."""
    if owner == "evaluation":  # which the trial's id was given to
        rows = f"SELECT {table}.*, trial_id AS owner FROM {table}"
    else:
        rows = (
            f"SELECT {table}.*, run.trial_id AS owner FROM {table} "
            f"JOIN evaluation ON evaluation.id = {table}.evaluation_id "
            "JOIN run ON run.id = evaluation.run_id"
        )
    op.execute(f"CREATE TABLE former_{table} AS {rows}")
    op.drop_table(table)


def _take_back(table: str, owner: str, columns: str) -> None:
    op.execute(
        f"INSERT INTO {table} ({owner}, {columns}) SELECT owner, {columns} FROM former_{table}"
    )
    op.drop_table(f"former_{table}")


def _restore_trial() -> None:
    for column in (
        _column("seed", sa.BigInteger, default="0"),
        _column("train_flops", sa.Double, default="0"),
    ):
        op.add_column("trial", column)
    op.execute(
        "UPDATE trial SET seed = run.seed, train_flops = evaluation.until_flops "
        "FROM run JOIN evaluation ON evaluation.run_id = run.id WHERE run.trial_id = trial.id"
    )
    op.drop_index("ix_trial_study_id_seeds", "trial")
    for column in _of_trial():
        op.drop_column("trial", column.name)


def _restore_result() -> None:
    op.create_table(
        "result",
        sa.Column("trial_id", ROW_ID, autoincrement=False, nullable=False),
        *(_column(name, *kind) for name, kind in OF_RESULT.items()),
        sa.PrimaryKeyConstraint("trial_id", name="pk_result"),
        _reference("result", "trial_id", "trial"),
    )
    op.execute(
        f"INSERT INTO result (trial_id, {KEPT}) SELECT run.trial_id, {KEPT} FROM evaluation "
        "JOIN run ON run.id = evaluation.run_id WHERE status <> 'running'"
    )


def _count_on(table: str) -> None:
    """Let PostgreSQL number new rows after those that were copied with their numbers."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
            f"(SELECT COALESCE(MAX(id), 0) + 1 FROM {table}), false)"
        )
