"""From the store to what the page shows: plain values and pandas frames, no Streamlit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas.bounds import excess, limits, words
from nas.figure import si
from nas.objectives import OBJECTIVES
from nas.pareto import best, feasible_values, frontier, hypervolume_share
from nas.store import Ledger, Store, StudyRecord, StudyState, TrialRecord
from search_space.contract import Progress, Status

COLUMNS = (
    "trial",
    "design",
    "method",
    "status",
    "frontier",
    "infeasible",
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
    """One reading of a study, its trials by number.

    bounds: upper bounds by objective.  live: the curves of its running trials, by number.
    """

    study: StudyRecord
    trials: list[TrialRecord]
    ledger: Ledger
    bounds: dict[str, float]
    live: dict[int, list[Progress]]

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that have not ended."""
        return [trial for trial in self.trials if trial.status is Status.RUNNING]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the study."""
        return self.study.state is not StudyState.RUNNING

    @property
    def stamp(self) -> tuple[str, str, int, int]:
        """Equal for readings that differ in the curves of running trials alone.

        Trials are only added and end once: how many there are, and run, tells all.
        """
        study = self.study
        return study.uid, study.state.value, len(self.trials), len(self.running)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The study in a few numbers.

    infeasible: finished, and a bound is broken as measured.
    best, best_se: bits per byte of the best design.  ngram: (order, bits per byte) of the best
    n-gram baseline.  hypervolume: share of the box up to the worst values, in [0, 1).
    """

    finished: int
    infeasible: int
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


def read(store: Store, name: str, before: Snapshot | None = None) -> Snapshot:
    """The study as it stands; raise InputError when it does not exist.

    before: an earlier reading. Its ended trials are not read again, for they never change.
    """
    study = store.study(name)
    if before is None or before.study.uid != study.uid or not before.trials:
        trials, ledger = store.trials(study.id, stats=False), store.ledger(study.id)
    else:
        trials, ledger = before.trials, before.ledger
        running = {trial.number: trial for trial in before.running}
        since = trials[-1].number + 1
        changed = store.some_trials(study.id, running, since=since)
        if changed != list(running.values()):
            known = {trial.number: trial for trial in (*trials, *changed)}
            trials, ledger = list(known.values()), store.ledger(study.id)
    live = {t.number: store.curve(t.id) for t in trials if t.status is Status.RUNNING}
    return Snapshot(study=study, trials=trials, ledger=ledger, bounds=limits(study), live=live)


def headline(snapshot: Snapshot) -> Headline:
    """Count and compare the study's trials."""
    study, bounds = snapshot.study, snapshot.bounds
    counts = Counter(trial.status for trial in snapshot.trials)
    kept = [trial for trial in snapshot.trials if not excess(trial, bounds)]
    winner = best(kept)
    result = winner.result if winner else None
    baselines: dict[str, float] = study.facts.get("ngram_bits_per_byte", {})
    return Headline(
        finished=counts[Status.FINISHED],
        infeasible=len(snapshot.trials) - len(kept),
        running=counts[Status.RUNNING],
        stopped=counts[Status.STOPPED],
        failed=sum(counts[status] for status in FAILURES),
        spent=snapshot.ledger.spent,
        budget=snapshot.ledger.budget,
        best=result.bits_per_byte if result else None,
        best_se=result.bits_per_byte_se if result else None,
        ngram=min(baselines.items(), key=lambda item: item[1]) if baselines else None,
        frontier=len(frontier(kept, study.objectives)),
        hypervolume=hypervolume_share(
            [values for values, _ in feasible_values(kept, study.objectives)]
        ),
    )


def trial_frame(snapshot: Snapshot) -> pd.DataFrame:
    """One row a trial, with missing values where a trial has none."""
    front = frontier(snapshot.trials, snapshot.study.objectives, snapshot.bounds)
    on_front = {trial.number for trial in front}
    return pd.DataFrame(
        [_row(trial, trial.number in on_front, snapshot.bounds) for trial in snapshot.trials],
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


def outcome_frame(trial: TrialRecord, bounds: Mapping[str, float]) -> pd.DataFrame:
    """What the design costs and how its training ended, one (measure, value) row each."""
    over = excess(trial, bounds)
    rows = [
        ("status", trial.status.value),
        *([("infeasible", words(over))] if over else []),
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


def _row(trial: TrialRecord, on_front: bool, bounds: Mapping[str, float]) -> dict[str, Any]:
    result = trial.result
    values = {name: each.value(trial) for name, each in OBJECTIVES.items()}
    return {
        "trial": trial.number,
        "design": trial.spec.label,
        "method": trial.spec.method,
        "status": trial.status.value,
        "frontier": on_front,
        "infeasible": words(excess(trial, bounds)),
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
