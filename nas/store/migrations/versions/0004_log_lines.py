"""What workers say during evaluations: a line a row. Evaluations of before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table of lines."""
    row_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "log_line",
        sa.Column("evaluation_id", row_id, autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "attempt", "number", name="pk_log_line"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluation.id"],
            name="fk_log_line_evaluation_id_evaluation",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    """Drop it, with its lines."""
    op.drop_table("log_line")
