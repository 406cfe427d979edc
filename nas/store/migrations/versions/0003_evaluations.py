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
KEPT = (
    "error, bits_per_byte, bits_per_byte_se, loss, steps, tokens, flops, optimizer_flops, "
    "active_flops, activity, stats, seconds, checkpoint, checkpoint_digest, backend"
)


def _column(name: str, kind: Any, nullable: bool = False, default: str | None = None) -> Any:
    return sa.Column(name, kind, nullable=nullable, server_default=default)


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target}"
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    # Columns are added and dropped one by one: a batch operation would make SQLite's tables anew,
    # and dropping the old ones would delete every row that refers to them.
    _widen_study()
    _widen_trial()
    _create_run()
    _create_evaluation()
    _fill()
    _move_curves()
    _move_ledger()
    op.drop_table("result")
    op.drop_column("trial", "seed")
    op.drop_column("trial", "train_flops")


def downgrade() -> None:
    raise NotImplementedError("evaluations cannot be put back into trials; restore a copy")


def _widen_study() -> None:
    for column in (
        _column("rungs", sa.Integer, default="1"),
        _column("deviation", sa.Double, nullable=True),
        _column("spent_flops", sa.Double, default="0"),
        _column("owner", sa.Text, default=""),
        _column("owner_since", TIME, nullable=True),
        _column("lease_until", sa.Double, default="0"),
        _column("fence", sa.BigInteger, default="0"),
        _column("asked", sa.String(16), default=""),
    ):
        op.add_column("study", column)


def _widen_trial() -> None:
    for column in (
        _column("rung", sa.Integer, nullable=True),
        _column("seeds", sa.Integer, default="0"),
        _column("bits_per_byte", sa.Double, nullable=True),
        _column("active_flops", sa.Double, nullable=True),
        _column("flops", sa.Double, default="0"),
        _column("evaluation_id", ROW_ID, nullable=True),
    ):
        op.add_column("trial", column)
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


def _move_curves() -> None:
    _set_aside("curve_point")
    op.create_table(
        "curve_point",
        sa.Column("evaluation_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger, autoincrement=False, nullable=False),
        _column("steps", sa.BigInteger),
        _column("flops", sa.Double),
        _column("loss", sa.Double),
        _column("seconds", sa.Double),
        sa.PrimaryKeyConstraint("evaluation_id", "step", name="pk_curve_point"),
        _reference("curve_point", "evaluation_id", "evaluation"),
    )
    _take_back(
        "curve_point", "evaluation_id, step, steps, flops, loss, seconds",
        "trial_id, step, steps, flops, loss, seconds",
    )  # fmt: skip


def _move_ledger() -> None:
    _set_aside("ledger_entry")
    op.create_table(
        "ledger_entry",
        _column("id", ROW_ID),
        _column("study_id", ROW_ID),
        _column("evaluation_id", ROW_ID),
        _column("kind", sa.String(16)),
        _column("flops", sa.Double),
        _column("created_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_entry"),
        _reference("ledger_entry", "study_id", "study"),
        _reference("ledger_entry", "evaluation_id", "evaluation"),
    )
    op.create_index("ix_ledger_entry_study_id", "ledger_entry", ["study_id"])
    _take_back(
        "ledger_entry", "id, study_id, evaluation_id, kind, flops, created_at",
        "id, study_id, trial_id, kind, flops, created_at",
    )  # fmt: skip
    _count_on("ledger_entry")


def _set_aside(table: str) -> None:
    """Copy a table's rows and drop it, so that a new one can have its names."""
    op.execute(f"CREATE TABLE former_{table} AS SELECT * FROM {table}")
    op.drop_table(table)


def _take_back(table: str, columns: str, former: str) -> None:
    op.execute(f"INSERT INTO {table} ({columns}) SELECT {former} FROM former_{table}")
    op.drop_table(f"former_{table}")


def _count_on(table: str) -> None:
    """Let PostgreSQL number new rows after those that were copied with their numbers."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
            f"(SELECT COALESCE(MAX(id), 0) + 1 FROM {table}), false)"
        )
