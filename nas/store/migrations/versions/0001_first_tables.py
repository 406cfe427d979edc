"""Studies, trials, results, curves and the ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def _column(name: str, kind: Any, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable)


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target}"
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Make the first tables."""
    _create_study()
    _create_trial()
    _create_result()
    _create_curve_point()
    _create_ledger_entry()


def downgrade() -> None:
    """Drop all tables."""
    for table in ("ledger_entry", "curve_point", "result", "trial", "study"):
        op.drop_table(table)


def _create_study() -> None:
    op.create_table(
        "study",
        _column("id", ROW_ID),
        _column("name", sa.String(64)),
        _column("config", sa.JSON),
        _column("seed", sa.BigInteger),
        _column("budget_flops", sa.Double),
        _column("objectives", sa.JSON),
        _column("state", sa.String(16)),
        _column("facts", sa.JSON),
        _column("n_trials", sa.Integer),
        _column("created_at", TIME),
        _column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name"),
    )


def _create_trial() -> None:
    op.create_table(
        "trial",
        _column("id", ROW_ID),
        _column("study_id", ROW_ID),
        _column("number", sa.Integer),
        _column("spec", sa.JSON),
        _column("key", sa.String(32)),
        _column("params", sa.JSON),
        _column("seed", sa.BigInteger),
        _column("source", sa.Text),
        _column("train_flops", sa.Double),
        _column("cost", sa.JSON),
        _column("status", sa.String(16)),
        _column("created_at", TIME),
        _column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        _reference("trial", "study_id", "study"),
        sa.UniqueConstraint("study_id", "number", name="uq_trial_study_id_number"),
    )
    op.create_index("ix_trial_study_id_key", "trial", ["study_id", "key"])


def _create_result() -> None:
    op.create_table(
        "result",
        sa.Column("trial_id", ROW_ID, autoincrement=False, nullable=False),
        _column("error", sa.Text),
        _column("bits_per_byte", sa.Double, nullable=True),
        _column("bits_per_byte_se", sa.Double, nullable=True),
        _column("loss", sa.Double, nullable=True),
        _column("steps", sa.BigInteger),
        _column("tokens", sa.BigInteger),
        _column("flops", sa.Double),
        _column("optimizer_flops", sa.Double),
        _column("active_flops", sa.Double, nullable=True),
        _column("activity", sa.JSON),
        _column("stats", sa.JSON),
        _column("seconds", sa.Double),
        _column("checkpoint", sa.Text),
        _column("backend", sa.Text),
        sa.PrimaryKeyConstraint("trial_id", name="pk_result"),
        _reference("result", "trial_id", "trial"),
    )


def _create_curve_point() -> None:
    op.create_table(
        "curve_point",
        sa.Column("trial_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger, autoincrement=False, nullable=False),
        _column("steps", sa.BigInteger),
        _column("flops", sa.Double),
        _column("loss", sa.Double),
        _column("seconds", sa.Double),
        sa.PrimaryKeyConstraint("trial_id", "step", name="pk_curve_point"),
        _reference("curve_point", "trial_id", "trial"),
    )


def _create_ledger_entry() -> None:
    op.create_table(
        "ledger_entry",
        _column("id", ROW_ID),
        _column("study_id", ROW_ID),
        _column("trial_id", ROW_ID),
        _column("kind", sa.String(16)),
        _column("flops", sa.Double),
        _column("created_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_entry"),
        _reference("ledger_entry", "study_id", "study"),
        _reference("ledger_entry", "trial_id", "trial"),
    )
    op.create_index("ix_ledger_entry_study_id", "ledger_entry", ["study_id"])
