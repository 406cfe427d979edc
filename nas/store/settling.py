"""How an evaluation ends or is taken up again: its account, and where its trial then stands."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from nas.store.conversion import result_values
from nas.store.endings import spent_flops
from nas.store.leases import MINE, late
from nas.store.ledger import add_lines
from nas.store.locks import Locked
from nas.store.models import EVALUATION, RUN, STUDY, TRIAL, EntryKind
from nas.store.standing import Standing, pooled_deviation, standing
from search_space.contract import EvalResult, Status

_E = EVALUATION.c
_RUNS = EVALUATION.join(RUN, RUN.c.id == _E.run_id)
_UNDER_WAY = select(RUN.c.trial_id, _E.reserved, _E.flops).select_from(_RUNS).where(*MINE)
_ONE = select(
    RUN.c.trial_id, _E.status, _E.ended_at, _E.until_flops, _E.start_flops, _E.flops
).select_from(_RUNS).where(_E.id == bindparam("evaluation"))  # fmt: skip
_CHANGE = update(EVALUATION).where(_E.id == bindparam("evaluation"))
_CHARGE = (
    update(STUDY)
    .where(STUDY.c.id == bindparam("study"))
    .values(spent_flops=STUDY.c.spent_flops + bindparam("spent"))
)
_OF_TRIAL = (
    select(_E.id, _E.run_id, _E.rung, _E.status, _E.bits_per_byte, _E.active_flops, _E.flops,
           _E.ended_at)
    .select_from(_RUNS)
    .where(RUN.c.trial_id == bindparam("trial"))
)  # fmt: skip
_STAND = update(TRIAL).where(TRIAL.c.id == bindparam("trial"))
_REPEATED = (
    select(TRIAL.c.id, _E.bits_per_byte)
    .select_from(_RUNS.join(TRIAL, TRIAL.c.id == RUN.c.trial_id))
    .where(
        TRIAL.c.study_id == bindparam("study"),
        TRIAL.c.seeds > 1,
        TRIAL.c.rung == bindparam("top"),
        _E.rung == bindparam("top"),
        _E.status == Status.FINISHED.value,
    )
)
_DEVIATE = update(STUDY).where(STUDY.c.id == bindparam("study"))


def settle(connection: Connection, study: Locked, ending: EvalResult, at: datetime) -> int:
    """Record an ending and what it cost, once; returns the trial's id.

    Raises LeaseLost unless the evaluation is under way in that attempt, or ended by this very call.
    """
    values = {"evaluation": ending.evaluation, "its_attempt": ending.attempt}
    row = connection.execute(_UNDER_WAY, values).one_or_none()
    if row is None:
        return _same(connection, ending, at)
    spent = max(0.0, spent_flops(ending.flops, row.flops + row.reserved) - row.flops)
    columns = result_values(replace(ending, flops=row.flops + spent)) | {
        "status": ending.status.value,
        "ended_at": at,
        "owner": "",
        "lease_until": 0.0,
        "reserved": 0.0,
    }
    connection.execute(_CHANGE, columns | {"evaluation": ending.evaluation})
    lines = {EntryKind.SPEND: spent, EntryKind.REFUND: row.reserved - spent}
    add_lines(connection, study.id, ending.evaluation, lines)
    connection.execute(_CHARGE, {"study": study.id, "spent": spent})
    stands = stand(connection, row.trial_id, study.rungs)
    if stands.seeds > 1 and stands.rung == study.rungs - 1:
        _pool_deviation(connection, study)
    return int(row.trial_id)


def go_on(connection: Connection, study: Locked, id: int) -> None:
    """Let an evaluation that was claimed run, and reserve again what its stop gave back."""
    row = connection.execute(_ONE, {"evaluation": id}).one()
    if row.status != Status.STOPPED.value:
        return
    again = max(0.0, row.until_flops - row.start_flops - row.flops)
    running = {"status": Status.RUNNING.value, "reserved": again, "error": "", "ended_at": None}
    connection.execute(_CHANGE, running | {"evaluation": id})
    add_lines(connection, study.id, id, {EntryKind.RESERVE: again})
    stand(connection, row.trial_id, study.rungs)


def stand(connection: Connection, trial_id: int, rungs: int) -> Standing:
    """Write where a trial stands now into its row."""
    found = standing(connection.execute(_OF_TRIAL, {"trial": trial_id}).all(), rungs)
    connection.execute(_STAND, asdict(found) | {"status": found.status.value, "trial": trial_id})
    return found


def _same(connection: Connection, ending: EvalResult, at: datetime) -> int:
    row = connection.execute(_ONE, {"evaluation": ending.evaluation}).one_or_none()
    if row is None or (row.status, row.ended_at) != (ending.status.value, at):
        raise late(ending.evaluation, ending.attempt)
    return int(row.trial_id)


def _pool_deviation(connection: Connection, study: Locked) -> None:
    """Write the deviation of one seed anew."""
    values: dict[int, list[float]] = {}
    for trial, bits in connection.execute(_REPEATED, {"study": study.id, "top": study.rungs - 1}):
        values.setdefault(trial, []).append(bits)
    pooled = pooled_deviation(values.values())
    connection.execute(_DEVIATE, {"study": study.id, "deviation": pooled})
