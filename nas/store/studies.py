"""`Studies`: the store's part that reads and writes studies."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from nas.store.conversion import study_record
from nas.store.database import Database
from nas.store.engine import START_HINT
from nas.store.errors import StoreError
from nas.store.facts import Facts
from nas.store.locks import lock_study
from nas.store.models import StudyRow
from nas.store.names import check_name, free_name, is_legal
from nas.store.outage import CALLED, lasting, now
from nas.store.reading import read_studies
from nas.store.records import Hold, StudyRecord, StudyState
from search_space.checks import WHOLE, is_whole, real
from search_space.errors import InputError, nearest, require, shown

_NAME_ATTEMPTS = 100


class Studies(Database):
    """Create, find and update studies."""

    def check_name(self, name: str) -> None:
        """Raise InputError unless a new study can have exactly this name."""
        check_name(name)
        if name in self._study_names():
            raise _taken(name)

    @lasting
    def create_study(
        self,
        base_name: str,
        config: dict[str, Any],
        seed: int,
        budget_flops: float,
        objectives: list[str],
        exact: bool = False,
        rungs: int = 1,
        facts: Facts | None = None,
        at: datetime = CALLED,
    ) -> StudyRecord:
        """A new running study, named `base_name` or, when that is taken, `base_name-2`...

        at: the time of the call; the same call again finds the study of the first.
        Raises InputError for an illegal name, and with `exact` for a taken one.
        """
        check_name(base_name)
        require(is_whole(seed, -WHOLE - 1), f"a seed must fit in 64 bits: got {shown(seed)}")
        real("a study's budget in FLOPs", budget_flops, above=0)
        for _ in range(_NAME_ATTEMPTS):
            if twin := self._created(at, config):
                return twin
            name = base_name if exact else free_name(base_name, self._study_names())
            row = StudyRow(
                uid=uuid.uuid4().hex,
                name=name,
                config=config,
                seed=seed,
                budget_flops=budget_flops,
                objectives=list(objectives),
                state=StudyState.RUNNING.value,
                facts=facts.to_dict() if facts else {},
                n_trials=0,
                rungs=rungs,
                created_at=at,
            )
            try:
                with self._sessions.begin() as session:
                    session.add(row)
                return study_record(row)
            except IntegrityError:
                # Somebody else took the name since it was looked up: look again.
                if exact and not self._created(at, config):
                    raise _taken(name) from None
        raise StoreError(f"no free name for a study {base_name!r} in {_NAME_ATTEMPTS} attempts")

    def studies(self) -> list[StudyRecord]:
        """All studies, the newest first."""
        query = select(StudyRow).order_by(StudyRow.id.desc())
        return self._read(lambda session: read_studies(session, query))

    def study(self, name: str | None = None) -> StudyRecord:
        """The study of that name, or the newest; raise InputError when there is none."""
        query = select(StudyRow).order_by(StudyRow.id.desc()).limit(1)
        if name is not None:
            query = query.where(StudyRow.name == name)
        # No database is asked for a name that it might not even be able to read.
        legal = name is None or is_legal(name)
        found = self._read(lambda session: read_studies(session, query)) if legal else []
        if found:
            return found[0]
        names = self._study_names()
        require(bool(names), f"no studies yet; {START_HINT}")
        raise InputError(f"no study named {shown(name)}; {nearest(name, names)}")

    @lasting
    def update_study(
        self, study_id: int, *, state: StudyState | None = None, facts: Facts | None = None
    ) -> StudyRecord:
        """Set the study's state, and merge `facts` into what is known; return the study.

        state: a new one, None to leave it.
        facts: those that say something replace what was known, each as a whole.
        Raises StoreError when there is no such study.
        """
        values: dict[str, Any] = {"state": StudyRow.state}
        if state is not None:
            ended = None if state is StudyState.RUNNING else now()
            values = {"state": state.value, "ended_at": ended}
        with self._sessions.begin() as session:
            session.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))
            row = session.get(StudyRow, study_id)
            if row is None:
                raise StoreError(f"no study with id {study_id}")
            if facts is not None:
                row.facts = {**row.facts, **facts.to_dict()}
        return study_record(row)

    @lasting
    def extend(self, hold: Hold, config: dict[str, Any], budget_flops: float) -> None:
        """Give a study a larger budget. Raises LeaseLost for a late holder."""
        with self._writing() as connection:
            study = lock_study(connection, hold.study_id, hold)
            values = {"config": config, "budget_flops": budget_flops}
            connection.execute(update(StudyRow).where(StudyRow.id == study.id).values(values))

    def _created(self, at: datetime, config: dict[str, Any]) -> StudyRecord | None:
        """The study that an earlier attempt of the same call stored."""
        query = select(StudyRow).where(StudyRow.created_at == at)
        found = self._read(lambda session: read_studies(session, query))
        return next((study for study in found if study.config == config), None)

    def _study_names(self) -> set[str]:
        return self._read(lambda session: set(session.scalars(select(StudyRow.name))))


def _taken(name: str) -> InputError:
    return InputError(
        f"a study's name must be new: {name!r} exists; choose another, or go on with it: "
        f"nas resume {name}"
    )
