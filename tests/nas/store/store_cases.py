"""Studies, trials and endings for tests of the store."""

from __future__ import annotations

from nas.store import EvaluationRecord, Store, StudyRecord, TrialRecord
from search_space.contract import EvalResult, Status
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec

SPEC = FFNSpec(d_ff=512, expert_width=64, selection=TopK(k=2, gate="sigmoid"))
OBJECTIVES = ["bits_per_byte", "active_flops"]


def new_study(store: Store, name: str = "demo", **more: object) -> StudyRecord:
    values: dict = {"config": {"a": [1, None]}, "seed": 7, "budget_flops": 1e13}
    return store.create_study(name, **(values | {"objectives": OBJECTIVES} | more))


def new_trial(
    store: Store, study: StudyRecord, flops: float = 1e12, **more: object
) -> tuple[TrialRecord, EvaluationRecord]:
    values: dict = {"seed": 3, "source": "sampler", "params": {"k": 2}}
    values |= {"until_flops": flops, "cost": {"active_flops": 5e5}}
    return store.add_trial(study.id, SPEC, **(values | more))


def finished(evaluation: EvaluationRecord, **more: object) -> EvalResult:
    """An ending with every measure; that of a lease which `evaluation` shows."""
    values: dict = {
        "status": Status.FINISHED,
        "attempt": evaluation.attempt,
        "bits_per_byte": 2.25,
        "bits_per_byte_se": 0.01,
        "loss": 4.5,
        "windows": [1.5, 2.0**-40],
        "steps": 10,
        "tokens": 2**40,
        "flops": 9e11,
        "optimizer_flops": 3e11,
        "trunk_flops": 6e11,
        "active_flops": 4.5e5,
        "activity": [0.25, 0.5],
        "stats": {"load": [1, 2.5, "x", None]},
        "seconds": 12.5,
        "checkpoint": "trial-0",
        "checkpoint_digest": "d" * 64,
        "backend": "torch cpu",
    }
    return EvalResult(evaluation=evaluation.id, **(values | more))


def ending(
    evaluation: EvaluationRecord, status: Status, flops: float, **more: object
) -> EvalResult:
    """An ending that measured nothing."""
    return EvalResult(
        evaluation=evaluation.id, attempt=evaluation.attempt, status=status, flops=flops, **more
    )


def at_rung(
    store: Store, study: StudyRecord, trial: TrialRecord, rung: int, until: float, **more: object
) -> EvaluationRecord:
    """A running evaluation of a trial's run."""
    values: dict = {"seed": 3, "rung": rung, "until_flops": until}
    return store.add_evaluation(study.id, trial.id, **(values | more))
