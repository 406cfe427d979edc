"""The tables, as SQLAlchemy models; `migrations/` holds the same tables as history."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Double, TypeDecorator

NAME_LENGTH = 64


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC time, also on SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """A time as it is stored, in UTC. Raises ValueError for one without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a stored time needs a zone: got {value!r}")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """A stored time, in UTC: SQLite returns it without its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only when the key is a plain INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Constraints carry fixed names, so that a later migration can address them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class StudyRow(Base):
    """One study. `n_trials` hands out trial numbers, `uid` tells it from all other studies.

    rungs: how many it has.
    deviation: of one seed at the top rung, pooled over its trials.
    spent_flops: the sum of its ledger's `SPEND` lines, so that nobody must add them up.
    owner, owner_since, lease_until, fence: the driver that holds it, until when by the database's
        clock (seconds since 1970), and the token that its writes must show.
    asked: what its driver is asked to do, such as to stop.
    """

    __tablename__ = "study"
    __table_args__ = (UniqueConstraint("name"), Index(None, "uid", unique=True))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    uid: Mapped[str] = mapped_column(String(32), server_default="")
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    budget_flops: Mapped[float] = mapped_column(Double)
    objectives: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    n_trials: Mapped[int] = mapped_column(Integer)
    rungs: Mapped[int] = mapped_column(Integer, server_default="1")
    deviation: Mapped[float | None] = mapped_column(Double)
    spent_flops: Mapped[float] = mapped_column(Double, server_default="0")
    owner: Mapped[str] = mapped_column(Text, server_default="")
    owner_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    lease_until: Mapped[float] = mapped_column(Double, server_default="0")
    fence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    asked: Mapped[str] = mapped_column(String(16), server_default="")
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class TrialRow(Base):
    """One design, and where it stands: `nas.store.standing` makes that of its evaluations.

    evaluation_id: the evaluation whose ending is shown as the trial's.
    """

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index(None, "study_id", "key"),
        Index(None, "study_id", "seeds"),  # finds the few that were repeated
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    key: Mapped[str] = mapped_column(String(32))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    source: Mapped[str] = mapped_column(Text)
    cost: Mapped[dict[str, float]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16))
    rung: Mapped[int | None] = mapped_column(Integer)
    seeds: Mapped[int] = mapped_column(Integer, server_default="0")
    bits_per_byte: Mapped[float | None] = mapped_column(Double)
    active_flops: Mapped[float | None] = mapped_column(Double)
    flops: Mapped[float] = mapped_column(Double, server_default="0")
    evaluation_id: Mapped[int | None] = mapped_column(RowId)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class RunRow(Base):
    """One training of a trial with one seed."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("trial_id", "seed"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    seed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)


class EvaluationRow(Base):
    """A run brought to a rung: its lease, and how it ended (the fields of `EvalResult`).

    attempt: the fencing token.
    losses: workers that it lost.
    owner, lease_until: who holds its lease, and until when by the database's clock.
    claimed_at: when its owner asked for it, by the owner's clock: the name of that claim.
    reserved: FLOPs held for it now.
    flops: FLOPs charged so far.
    windows: nats of each validation window, as `nas.store.windows` packs them.
    """

    __tablename__ = "evaluation"
    __table_args__ = (UniqueConstraint("run_id", "rung"), Index(None, "study_id", "status"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    rung: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    losses: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str] = mapped_column(Text)
    lease_until: Mapped[float] = mapped_column(Double)
    claimed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    status: Mapped[str] = mapped_column(String(16))
    until_flops: Mapped[float] = mapped_column(Double)
    start_flops: Mapped[float] = mapped_column(Double)
    reserved: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    error: Mapped[str] = mapped_column(Text, server_default="")
    bits_per_byte: Mapped[float | None] = mapped_column(Double)
    bits_per_byte_se: Mapped[float | None] = mapped_column(Double)
    loss: Mapped[float | None] = mapped_column(Double)
    windows: Mapped[bytes] = mapped_column(LargeBinary)
    steps: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[float] = mapped_column(Double)
    optimizer_flops: Mapped[float] = mapped_column(Double)
    trunk_flops: Mapped[float] = mapped_column(Double)
    active_flops: Mapped[float | None] = mapped_column(Double)
    activity: Mapped[list[float]] = mapped_column(JSON)
    stats: Mapped[dict[str, Any]] = mapped_column(JSON)
    seconds: Mapped[float] = mapped_column(Double)
    checkpoint: Mapped[str] = mapped_column(Text, server_default="")
    checkpoint_digest: Mapped[str] = mapped_column(Text, server_default="")
    backend: Mapped[str] = mapped_column(Text, server_default="")


class CurvePointRow(Base):
    """One `Progress` of an evaluation."""

    __tablename__ = "curve_point"

    evaluation_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("evaluation.id", ondelete="CASCADE"), primary_key=True,
        autoincrement=False,
    )  # fmt: skip
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    steps: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[float] = mapped_column(Double)
    loss: Mapped[float] = mapped_column(Double)
    seconds: Mapped[float] = mapped_column(Double)


class LogLineRow(Base):
    """One `LogLine` of an evaluation."""

    __tablename__ = "log_line"

    evaluation_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("evaluation.id", ondelete="CASCADE"), primary_key=True,
        autoincrement=False,
    )  # fmt: skip
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UTCDateTime)
    level: Mapped[str] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(Text)


class EntryKind(StrEnum):
    """What a ledger entry does; a settled reservation equals its spending plus its refund."""

    RESERVE = "reserve"
    SPEND = "spend"
    REFUND = "refund"


class LedgerEntryRow(Base):
    """One line of the account; lines are only ever added."""

    __tablename__ = "ledger_entry"
    __table_args__ = (Index(None, "study_id"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluation.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    flops: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)


# The tables for statements that run once an evaluation: a mapped class costs them a third more.
STUDY, TRIAL, RUN, EVALUATION, CURVE_POINT, LOG_LINE, LEDGER_ENTRY = (
    cast(Table, row.__table__)
    for row in (
        *(StudyRow, TrialRow, RunRow, EvaluationRow),
        *(CurvePointRow, LogLineRow, LedgerEntryRow),
    )
)
