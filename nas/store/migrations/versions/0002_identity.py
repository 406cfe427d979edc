"""A study's identity, and the digest of a result's checkpoint."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Give every study an identity, and a result room for its checkpoint's digest."""
    # Added with a default and indexed by itself: a batch operation would make SQLite's table anew,
    # and dropping the old one would delete every trial that refers to it.
    op.add_column("study", sa.Column("uid", sa.String(32), nullable=False, server_default=""))
    study = sa.table("study", sa.column("id", sa.BigInteger), sa.column("uid", sa.String))
    connection = op.get_bind()
    for number in connection.scalars(sa.select(study.c.id)).all():
        identity = uuid.uuid4().hex
        connection.execute(sa.update(study).where(study.c.id == number).values(uid=identity))
    op.create_index("ix_study_uid", "study", ["uid"], unique=True)
    digest = sa.Column("checkpoint_digest", sa.Text, nullable=False, server_default="")
    op.add_column("result", digest)


def downgrade() -> None:
    """Take identities and digests away."""
    op.drop_column("result", "checkpoint_digest")
    op.drop_index("ix_study_uid", "study")
    op.drop_column("study", "uid")
