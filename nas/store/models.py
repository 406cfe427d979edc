"""The tables, as SQLAlchemy models; `migrations/` holds the same tables as history."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
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
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a stored time needs a zone: got {value!r}")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
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
    """One study. `n_trials` hands out trial numbers, `uid` tells it from all other studies."""

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
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class TrialRow(Base):
    """One trial; its measures are in `result`."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("study_id", "number"), Index(None, "study_id", "key"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    key: Mapped[str] = mapped_column(String(32))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(Text)
    train_flops: Mapped[float] = mapped_column(Double)
    cost: Mapped[dict[str, float]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class ResultRow(Base):
    """How a trial ended: `EvalResult` without its status, which the trial carries."""

    __tablename__ = "result"

    trial_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    error: Mapped[str] = mapped_column(Text)
    bits_per_byte: Mapped[float | None] = mapped_column(Double)
    bits_per_byte_se: Mapped[float | None] = mapped_column(Double)
    loss: Mapped[float | None] = mapped_column(Double)
    steps: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[float] = mapped_column(Double)
    optimizer_flops: Mapped[float] = mapped_column(Double)
    active_flops: Mapped[float | None] = mapped_column(Double)
    activity: Mapped[list[float]] = mapped_column(JSON)
    stats: Mapped[dict[str, Any]] = mapped_column(JSON)
    seconds: Mapped[float] = mapped_column(Double)
    checkpoint: Mapped[str] = mapped_column(Text)
    checkpoint_digest: Mapped[str] = mapped_column(Text, server_default="")
    backend: Mapped[str] = mapped_column(Text)


class CurvePointRow(Base):
    """One `Progress` of a trial."""

    __tablename__ = "curve_point"

    trial_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    steps: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[float] = mapped_column(Double)
    loss: Mapped[float] = mapped_column(Double)
    seconds: Mapped[float] = mapped_column(Double)


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
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    flops: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
