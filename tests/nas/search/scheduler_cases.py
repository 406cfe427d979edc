"""Made-up records of a study, and what the scheduler answers to them."""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import UTC, datetime, timedelta

from nas.search.decisions import Decision, Plan
from nas.search.rungs import rung_flops
from nas.search.scheduler import NONE_HELD, Board
from nas.store.records import EvaluationRecord, TrialRecord
from search_space.contract import Status
from search_space.spec import FFNSpec

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
SPEC = FFNSpec(d_ff=8)
ENDINGS = [Status.FINISHED, Status.DIVERGED, Status.FAILED, Status.OUT_OF_MEMORY]


def make_plan(**more) -> Plan:
    """Levels 100, 300, 900 with half of each trained anew: evaluations cost 100, 250 and 750."""
    usual = {
        "levels": (100.0, 300.0, 900.0),
        "reduction": 3,
        "decay": 0.5,
        "objectives": ("bits_per_byte", "active_flops"),
        "trials": 100,
        "flops": 1e9,
    }
    return Plan(**(usual | more))


FLAT = {"levels": (900.0,), "objectives": ("bits_per_byte",)}


def trial(number: int, active: float = 10.0) -> TrialRecord:
    cost = {"active_flops": active, "total_params": 5.0}
    return TrialRecord(
        id=number + 1,
        study_id=1,
        number=number,
        spec=SPEC,
        key=SPEC.key,
        params={},
        source="x",
        cost=cost,
        status=Status.RUNNING,
        created_at=EPOCH,
    )


def evaluation(
    id: int,
    trial: int,
    rung: int = 0,
    status: Status = Status.FINISHED,
    bits: float | None = None,
    seed: int = 0,
    active: float | None = None,
    plan: Plan | None = None,
    **more,
) -> EvaluationRecord:
    plan = plan or make_plan()
    repeat = seed != plan.seed
    cost = plan.levels[rung] if repeat else rung_flops(plan.levels, plan.decay)[rung]
    usual = {
        "attempt": 1,
        "losses": 0,
        "owner": "w" if status is Status.RUNNING else "",
        "start_flops": plan.levels[rung] - cost,
        "reserved": cost if status is Status.RUNNING else 0.0,
        "flops": cost if status.final else 0.0,
        "trunk_flops": plan.levels[rung] * (1 - plan.decay),
        "bits_per_byte_se": None,
        "seconds": 1.0,
        "error": "",
        "created_at": EPOCH,
        "ended_at": EPOCH + timedelta(seconds=id) if status.final else None,
    }
    return EvaluationRecord(
        id=id,
        trial_id=trial + 1,
        trial=trial,
        seed=seed,
        rung=rung,
        status=status,
        until_flops=plan.levels[rung],
        bits_per_byte=bits if status is Status.FINISHED else None,
        active_flops=active if status is Status.FINISHED else None,
        **(usual | more),
    )


def running(id: int, trial: int, rung: int = 0, **more) -> EvaluationRecord:
    return evaluation(id, trial, rung, Status.RUNNING, **more)


def decide(
    plan: Plan,
    trials: Iterable[tuple[TrialRecord, bool]],
    evaluations: Iterable[EvaluationRecord],
    *,
    held: Set[int] = NONE_HELD,
    warm_left: int = 0,
    exhausted: bool = False,
) -> Decision:
    """What to do next, from all records of a study; each trial comes with whether it is warm.

    The other arguments are those of `Board.decide`.
    """
    board = Board(plan)
    for trial, warm in trials:
        board.put_trial(trial.number, warm, trial.cost)
    for evaluation in evaluations:
        board.put(evaluation)
    return board.decide(held=held, warm_left=warm_left, exhausted=exhausted)


def deviation(board: Board) -> float | None:
    """Of one seed, in bits per byte, pooled over the top rung; None without two runs."""
    evidence = board._queues[1].evidence
    evidence.contenders(len(board._runs.measured))
    return evidence.deviation


def held(*records: EvaluationRecord) -> set[int]:
    return {record.id for record in records if not record.status.final}


def ask(plan: Plan, records, trials=None, warm=(), **more):
    """`decide` with the trials that the records speak of, and what is open held."""
    numbers = {record.trial for record in records} if trials is None else range(trials)
    pairs = [(trial(number), number in warm) for number in sorted(numbers)]
    return decide(plan, pairs, records, **({"held": held(*records)} | more))


def finished(bits: list[float], rung: int = 0, first: int = 1) -> list[EvaluationRecord]:
    return [evaluation(first + i, i, rung, bits=value) for i, value in enumerate(bits)]


REPEATS = {"repeat_share": 0.5, "seeds": 3}


def top(id: int, trial: int, bits: float, seed: int = 0, active: float = 10.0, **more):
    """A run that was measured at the top rung."""
    return evaluation(id, trial, 2, bits=bits, seed=seed, active=active, **more)
