"""From the store to what the page shows: plain values and pandas frames, no Streamlit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from nas.search.bounds import excess, limits, words
from nas.search.objectives import OBJECTIVES
from nas.search.pareto import best, feasible_values, frontier, hypervolume_share
from nas.store import EvaluationRecord, Ledger, Store, StudyRecord, StudyState, TrialRecord
from nas.views.certainty import Chance, chance_row, frontier_chances, neighbour_words
from nas.views.noise import noise
from nas.views.style import si
from nas.views.trial_rows import RUN_COLUMNS, flat_row, run_row
from search_space.backbone import Backbone
from search_space.contract import FAILURES, Progress, Status
from search_space.native import native_form


def trial_columns() -> list[str]:
    """The columns of `trial_frame`; what is measured or priced has those of its registry."""
    costs = [name for name in OBJECTIVES if name != "bits_per_byte"]
    return [
        *("trial", "design", "method", "status", "rung", "seeds", "frontier", "infeasible"),
        *("bits_per_byte", "noise", "p_frontier", "vs_cheaper", "bits_per_byte_se", *costs),
        *("flops_spent", "seconds", "source", "error"),
    ]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One reading of a study, its trials by number and its evaluations by id.

    bounds: upper bounds by objective.
    live: evaluation id -> points, of the evaluations that run and of the lower rungs of their runs.
    chances: by trial, of those on the frontier and near it.
    """

    study: StudyRecord
    trials: list[TrialRecord]
    evaluations: dict[int, EvaluationRecord]
    ledger: Ledger
    bounds: dict[str, float]
    live: dict[int, list[Progress]]
    chances: dict[int, Chance]

    @cached_property
    def open(self) -> list[EvaluationRecord]:
        """The evaluations that can change: they run, or were stopped and can be taken up."""
        return [each for each in self.evaluations.values() if not each.status.final]

    @property
    def running(self) -> list[EvaluationRecord]:
        """The evaluations that are under way."""
        return [each for each in self.open if each.status is Status.RUNNING]

    @cached_property
    def by_trial(self) -> dict[int, list[EvaluationRecord]]:
        """Trial number -> its evaluations in the order in which they began."""
        found: dict[int, list[EvaluationRecord]] = {}
        for each in self.evaluations.values():
            found.setdefault(each.trial, []).append(each)
        return found

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the study, unless it is resumed."""
        return self.study.state is not StudyState.RUNNING

    @property
    def stamp(self) -> tuple[object, ...]:
        """Equal for readings that differ in the curves of running evaluations alone.

        Evaluations are only added, and only the open ones change: how many there are, and how
        these stand, tells all of them. The rest is the study's own.
        """
        study = self.study
        own = (study.uid, study.state.value, study.owner, study.budget_flops, study.deviation)
        stand = tuple((each.id, each.status.value, each.attempt) for each in self.open)
        return *own, len(self.evaluations), stand


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The study in a few numbers.

    finished: designs that were measured at the top rung.
    infeasible: of these, those that break a bound as measured.
    paused, stopped, failed: designs.
    running: evaluations.
    best: bits per byte of the best design, the mean over best_seeds seeds.
    best_noise: see `nas.views.noise`.
    ngram: (order, bits per byte) of the best n-gram baseline.
    hypervolume: share of the box up to the worst values, in [0, 1).
    """

    finished: int
    infeasible: int
    paused: int
    running: int
    stopped: int
    failed: int
    spent: float
    budget: float
    best: float | None
    best_noise: float | None
    best_seeds: int
    ngram: tuple[str, float] | None
    frontier: int
    hypervolume: float


def read(store: Store, name: str, before: Snapshot | None = None) -> Snapshot:
    """The study as it stands; raise InputError when it does not exist.

    before: an earlier reading. Of its evaluations only the open ones are read again, and of its
    trials those that an evaluation began or changed of: nothing else can have happened since.
    """
    study = store.study(name)
    # Evaluations first: a trial is then never older than what is known of its evaluations.
    if before is None or before.study.uid != study.uid or not before.evaluations:
        evaluations = {each.id: each for each in store.evaluations(study.id)}
        trials, ledger = store.trials(study.id, stats=False), store.ledger(study.id)
        curves: dict[int, list[Progress]] = {}
        known_chances = None
    else:
        evaluations, trials, ledger = before.evaluations, before.trials, before.ledger
        curves, known_chances = before.live, before.chances
        known, since = [each.id for each in before.open], max(evaluations) + 1
        found = store.some_evaluations(study.id, known, since=since)
        changed = {each.id: each for each in found if evaluations.get(each.id) != each}
        if changed:
            evaluations = evaluations | changed
            numbers = {each.trial for each in changed.values()}
            merged = {trial.number: trial for trial in trials}
            merged |= {t.number: t for t in store.some_trials(study.id, numbers)}
            trials = list(merged.values())
            known_chances = None
        if changed or study.budget_flops != before.study.budget_flops:
            ledger = store.ledger(study.id)
    live, bounds = _live(store, evaluations, curves), limits(study)
    if known_chances is None:
        known_chances = frontier_chances(store, study, trials, bounds)
    return Snapshot(
        study=study,
        trials=trials,
        evaluations=evaluations,
        ledger=ledger,
        bounds=bounds,
        live=live,
        chances=known_chances,
    )


def _live(
    store: Store, evaluations: Mapping[int, EvaluationRecord], known: Mapping[int, list[Progress]]
) -> dict[int, list[Progress]]:
    """The curves of the runs that are under way; what a lower rung trained is read once."""
    runs = {
        (each.trial, each.seed) for each in evaluations.values() if each.status is Status.RUNNING
    }
    found = {}
    for each in evaluations.values():
        if (each.trial, each.seed) not in runs:
            continue
        kept = known.get(each.id) if each.status.final else None
        found[each.id] = store.curve(each.id) if kept is None else kept
    return found


def headline(snapshot: Snapshot) -> Headline:
    """Count and compare the study's trials."""
    study, bounds = snapshot.study, snapshot.bounds
    counts = Counter(trial.status for trial in snapshot.trials)
    kept = [trial for trial in snapshot.trials if not excess(trial, bounds)]
    winner = best(kept)
    return Headline(
        finished=counts[Status.FINISHED],
        infeasible=len(snapshot.trials) - len(kept),
        paused=counts[Status.PAUSED],
        running=len(snapshot.running),
        stopped=counts[Status.STOPPED],
        failed=sum(counts[status] for status in FAILURES),
        spent=snapshot.ledger.spent,
        budget=snapshot.ledger.budget,
        best=winner.bits_per_byte if winner else None,
        best_noise=noise(study, winner) if winner else None,
        best_seeds=winner.seeds if winner else 0,
        ngram=study.facts.best_ngram,
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
        [_row(snapshot, trial, trial.number in on_front) for trial in snapshot.trials],
        columns=trial_columns(),
    ).astype({"rung": "Int64"})


def evaluation_frame(evaluations: Iterable[EvaluationRecord]) -> pd.DataFrame:
    """One row an evaluation, by seed in the order in which the runs began, then by rung."""
    runs: dict[int, list[EvaluationRecord]] = {}
    for each in evaluations:
        runs.setdefault(each.seed, []).append(each)
    rows = [
        run_row(each) for run in runs.values() for each in sorted(run, key=lambda each: each.rung)
    ]
    return pd.DataFrame(rows, columns=[name for name in RUN_COLUMNS if name != "trial"])


def spec_frame(study: StudyRecord, trial: TrialRecord) -> pd.DataFrame:
    """The whole design, one (field, value) row each; selection knobs are indented by a dot. The
    last row says which class of transformers computes the same, or why none does."""
    spec = trial.spec.to_dict()
    selection = spec.pop("selection")
    rows = [(field, _text(value)) for field, value in spec.items()]
    rows.append(("selection", selection.pop("method")))
    rows += [(f"· {field}", _text(value)) for field, value in selection.items()]
    backbone = Backbone.from_dict(study.config.get("backbone") or {})
    rows.append(("native form", native_form(trial.spec, backbone).words))
    return pd.DataFrame(rows, columns=["field", "value"])


def outcome_frame(snapshot: Snapshot, trial: TrialRecord) -> pd.DataFrame:
    """What the design costs and how its training ended, one (measure, value) row each."""
    over, study = excess(trial, snapshot.bounds), snapshot.study
    rows = [
        ("status", trial.status.value),
        *([("infeasible", words(over))] if over else []),
        ("proposed by", trial.source),
    ]
    if trial.rung is not None:
        rows += [("rung", f"{trial.rung} of 0 to {study.top}")] if study.rungs > 1 else []
        rows.append(("seeds", str(trial.seeds)))
    for each in OBJECTIVES.values():
        value = each.value(trial)
        if value is not None:
            shown = f"{value:.4f}" if each.name == "bits_per_byte" else si(value)
            rows.append((each.title, shown))
    error = noise(study, trial)
    if error is not None:
        rows.append(("± one standard error", f"{error:.4f}"))
    if study.deviation is not None:
        rows.append(("Deviation of one seed", f"{study.deviation:.4f}"))
    rows += _chance_rows(chance_row(snapshot.chances.get(trial.number)))
    rows.append(("FLOPs spent", si(trial.flops)))
    return pd.DataFrame(rows + _result_rows(trial), columns=["measure", "value"])


def _chance_rows(chance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the trial's place on the frontier."""
    if chance["p_frontier"] is None:
        return []
    rows = [("Probability of being on the frontier", f"{chance['p_frontier']:.2f}")]
    for name in ("cheaper", "dearer"):
        words = neighbour_words(chance[name])
        if words is not None:
            rows.append((f"Bits per byte less the next {name} design's", words))
    return rows


def _result_rows(trial: TrialRecord) -> list[tuple[str, str]]:
    """What is known of the first run's last ending."""
    result = trial.result
    if result is None:
        return []
    rows = []
    if result.bits_per_byte_se is not None:
        rows.append(("Standard error over windows", f"{result.bits_per_byte_se:.4f}"))
    rows += [
        ("Optimizer FLOPs beside", si(result.optimizer_flops)),
        ("Tokens seen", si(result.tokens)),
        ("Backend", result.backend or "-"),
    ]
    if result.activity:
        rows.append(("Activity by layer", " ".join(f"{share:.2f}" for share in result.activity)))
    if result.checkpoint:
        rows.append(("Checkpoint", result.checkpoint))
    return rows


def _row(snapshot: Snapshot, trial: TrialRecord, on_front: bool) -> dict[str, Any]:
    own, begun = snapshot.by_trial.get(trial.number, ()), trial.result is not None
    chance = chance_row(snapshot.chances.get(trial.number))
    return flat_row(trial, snapshot.bounds) | {
        "p_frontier": chance["p_frontier"],
        "vs_cheaper": neighbour_words(chance["cheaper"]),
        "trial": trial.number,
        "frontier": on_front,
        "noise": noise(snapshot.study, trial),
        "flops_spent": trial.flops if begun else None,
        "seconds": sum(each.seconds for each in own) if begun else None,
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
