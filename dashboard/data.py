"""From the store to what the page shows: plain values and pandas frames, no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas.figure import si
from nas.objectives import OBJECTIVES, objective_values
from nas.pareto import best, frontier, hypervolume_share
from nas.store import Ledger, Store, StudyRecord, StudyState, TrialRecord
from search_space.contract import Progress, Status

COLUMNS = (
    "trial",
    "design",
    "method",
    "status",
    "frontier",
    "bits_per_byte",
    "bits_per_byte_se",
    "active_flops",
    "total_params",
    "active_params",
    "flops_spent",
    "seconds",
    "source",
    "error",
)
FAILURES = (Status.FAILED, Status.DIVERGED, Status.OUT_OF_MEMORY)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One reading of a study; `live` are the curves of its running trials, by number."""

    study: StudyRecord
    trials: list[TrialRecord]
    ledger: Ledger
    live: dict[int, list[Progress]]

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that have not ended."""
        return [trial for trial in self.trials if trial.status is Status.RUNNING]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the study."""
        return self.study.state is not StudyState.RUNNING


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The study in a few numbers.

    best, best_se: bits per byte of the best design.  ngram: (order, bits per byte) of the best
    n-gram baseline.  hypervolume: share of the box up to the worst values, in [0, 1).
    """

    finished: int
    running: int
    stopped: int
    failed: int
    spent: float
    budget: float
    best: float | None
    best_se: float | None
    ngram: tuple[str, float] | None
    frontier: int
    hypervolume: float


def read(store: Store, name: str) -> Snapshot:
    """The study as it stands; raise InputError when it does not exist."""
    study = store.study(name)
    trials = store.trials(study.id)
    live = {t.number: store.curve(t.id) for t in trials if t.status is Status.RUNNING}
    return Snapshot(study=study, trials=trials, ledger=store.ledger(study.id), live=live)


def headline(snapshot: Snapshot) -> Headline:
    """Count and compare the study's trials."""
    study, trials = snapshot.study, snapshot.trials
    valued = [objective_values(trial, study.objectives) for trial in trials]
    winner = best(trials)
    result = winner.result if winner else None
    baselines: dict[str, float] = study.facts.get("ngram_bits_per_byte", {})
    counts = pd.Series([trial.status for trial in trials], dtype=object).value_counts()
    return Headline(
        finished=int(counts.get(Status.FINISHED, 0)),
        running=int(counts.get(Status.RUNNING, 0)),
        stopped=int(counts.get(Status.STOPPED, 0)),
        failed=sum(int(counts.get(status, 0)) for status in FAILURES),
        spent=snapshot.ledger.spent,
        budget=snapshot.ledger.budget,
        best=result.bits_per_byte if result else None,
        best_se=result.bits_per_byte_se if result else None,
        ngram=min(baselines.items(), key=lambda item: item[1]) if baselines else None,
        frontier=len(frontier(trials, study.objectives)),
        hypervolume=hypervolume_share([values for values in valued if values is not None]),
    )


def trial_frame(study: StudyRecord, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row a trial, with missing values where a trial has none."""
    on_front = {trial.number for trial in frontier(trials, study.objectives)}
    return pd.DataFrame(
        [_row(trial, trial.number in on_front) for trial in trials],
        columns=list(COLUMNS),
    )


def spec_frame(trial: TrialRecord) -> pd.DataFrame:
    """The whole design, one (field, value) row each; selection knobs are indented by a dot."""
    spec = trial.spec.to_dict()
    selection = spec.pop("selection")
    rows = [(field, _text(value)) for field, value in spec.items()]
    rows.append(("selection", selection.pop("method")))
    rows += [(f"· {field}", _text(value)) for field, value in selection.items()]
    return pd.DataFrame(rows, columns=["field", "value"])


def outcome_frame(trial: TrialRecord) -> pd.DataFrame:
    """What the design costs and how its training ended, one (measure, value) row each."""
    rows = [
        ("status", trial.status.value),
        ("proposed by", trial.source),
        ("seed", str(trial.seed)),
    ]
    for each in OBJECTIVES.values():
        value = each.value(trial)
        if value is not None:
            shown = f"{value:.4f}" if each.name == "bits_per_byte" else si(value)
            rows.append((each.title, shown))
    result = trial.result
    if result is not None:
        if result.bits_per_byte_se is not None:
            rows.append(("Standard error", f"{result.bits_per_byte_se:.4f}"))
        rows += [
            ("FLOPs spent", si(result.flops)),
            ("Optimizer FLOPs beside", si(result.optimizer_flops)),
            ("Tokens seen", si(result.tokens)),
            ("Seconds", f"{result.seconds:.1f}"),
            ("Backend", result.backend or "-"),
        ]
        if result.activity:
            shares = " ".join(f"{share:.2f}" for share in result.activity)
            rows.append(("Activity by layer", shares))
        if result.checkpoint:
            rows.append(("Checkpoint", result.checkpoint))
    return pd.DataFrame(rows, columns=["measure", "value"])


def _row(trial: TrialRecord, on_front: bool) -> dict[str, Any]:
    result = trial.result
    values = {name: each.value(trial) for name, each in OBJECTIVES.items()}
    return {
        "trial": trial.number,
        "design": trial.spec.label,
        "method": trial.spec.method,
        "status": trial.status.value,
        "frontier": on_front,
        "bits_per_byte": values["bits_per_byte"],
        "bits_per_byte_se": result.bits_per_byte_se if result else None,
        "active_flops": values["active_flops"],
        "total_params": values["total_params"],
        "active_params": values["active_params"],
        "flops_spent": result.flops if result else None,
        "seconds": result.seconds if result else None,
        "source": trial.source,
        "error": result.error if result else "",
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
