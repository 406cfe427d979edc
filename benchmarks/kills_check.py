"""What is wrong with a study that was disturbed: lost, done twice, charged wrongly, different."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import create_engine, text

from nas.config import StudyConfig
from nas.models.checkpoints import find_checkpoint
from nas.running.resumption import stored_config
from nas.search.decisions import Done
from nas.search.scheduler import Board
from nas.store import EvaluationRecord, Store, StudyRecord, TrialRecord
from nas.store.windows import packed, unpacked
from search_space.contract import EvalRequest, EvalResult, Status
from search_space.errors import InputError

Line = tuple[int, str, float]  # of the ledger: evaluation, kind, FLOPs


@dataclass
class Findings:
    """Lines, one for each thing that is wrong.

    difference: FLOPs.
    """

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    difference: float = 0.0
    evaluations: int = 0

    def add(self, other: Findings) -> None:
        """Join another study's."""
        self.lost += other.lost
        self.twice += other.twice
        self.different += other.different
        self.difference += other.difference
        self.evaluations += other.evaluations


class Undisturbed:
    """What evaluations give when nothing happens to them: made in this process, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], EvalResult] = {}

    def result(
        self, config: StudyConfig, corpus_dir: str, trial: TrialRecord, evaluation: EvaluationRecord
    ) -> EvalResult:
        """Of the run brought to the rung without a stop. All studies have one configuration."""
        from workers.evaluate import evaluate

        key = trial.key, evaluation.seed, evaluation.rung
        if key not in self._known:
            request = EvalRequest(
                evaluation=0,
                spec=trial.spec,
                backbone=config.backbone,
                recipe=config.recipe,
                corpus_dir=corpus_dir,
                until_flops=evaluation.until_flops,
                run_flops=config.budget.trial_flops,
                seed=evaluation.seed,
                eval_tokens=config.eval_tokens,
                device="cpu",
            )
            result = evaluate(request, lambda point: None)
            kept = unpacked(packed(result.windows))  # the store rounds them to float32
            self._known[key] = replace(result, windows=kept)
        return self._known[key]


def check(url: str, name: str, undisturbed: Undisturbed) -> Findings:
    """Everything that can be said of a study that is finished."""
    with Store.open(url, create=False) as store:
        study = store.study(name)
        config = stored_config(study)
        trials, evaluations = store.trials(study.id), store.evaluations(study.id)
        account = store.ledger(study.id)
        found = Findings(evaluations=len(evaluations))
        found.lost += lost(config, trials, evaluations) + lost_weights(store, study, trials)
        found.twice += twice(trials, evaluations)
        found.difference += abs(account.reserved)
        found.difference += abs(round(account.spent - math.fsum(e.flops for e in evaluations)))
        found.difference += ledger_difference(ledger(url, study.id), evaluations)
        by_number = {trial.number: trial for trial in trials}
        for each in evaluations:
            if each.status is not Status.FINISHED:
                continue
            corpus_dir = study.facts.corpus_dir
            whole = undisturbed.result(config, corpus_dir, by_number[each.trial], each)
            result = store.result(each.id)
            place = f"{name}: trial {each.trial}, seed {each.seed}, rung {each.rung}"
            if wrong := differs(result, whole):
                found.different.append(f"{place}: {wrong}")
            found.difference += abs(each.start_flops + each.flops - whole.flops)
    return found


def lost(
    config: StudyConfig, trials: Sequence[TrialRecord], evaluations: Sequence[EvaluationRecord]
) -> list[str]:
    """What the scheduler still owes, and evaluations that have no result."""
    warm = {spec.key for _, spec in config.warm_start_specs()}
    known = {trial.key for trial in trials}
    wrong = [f"warm start {key} was never tried" for key in sorted(warm - known)]
    board = Board(config.plan())
    for trial in trials:
        board.put_trial(trial.number, trial.key in warm, trial.cost)
    for evaluation in evaluations:
        board.put(evaluation)
    next_ = board.decide()
    if not isinstance(next_, Done):
        wrong.append(f"the scheduler still owes {next_}")
    wrong += [
        f"trial {each.trial}, seed {each.seed}, rung {each.rung} is {each.status.value}: "
        f"{each.error}"
        for each in evaluations
        if each.status is not Status.FINISHED
    ]
    rungs = {(e.trial, e.rung) for e in evaluations if e.seed == config.seed}
    highest = {trial: max(rung for t, rung in rungs if t == trial) for trial, _ in rungs}
    for trial in trials:
        # A run goes through every rung up to its highest, and every design through the lowest.
        need = range(highest.get(trial.number, 0) + 1)
        gone = [rung for rung in need if (trial.number, rung) not in rungs]
        wrong += [f"trial {trial.number} was never measured at rung {rung}" for rung in gone]
    return wrong


def lost_weights(store: Store, study: StudyRecord, trials: Iterable[TrialRecord]) -> list[str]:
    """Trials of the top rung whose weights are gone or not their own."""
    wrong = []
    for trial in trials:
        if trial.status is Status.FINISHED:
            try:
                find_checkpoint(store, study, trial)
            except InputError as error:
                wrong.append(str(error))
    return wrong


def twice(trials: Sequence[TrialRecord], evaluations: Sequence[EvaluationRecord]) -> list[str]:
    """Numbers, designs and evaluations that there are more than one of, and gaps in numbers."""
    counted: dict[str, Counter[object]] = {
        "design": Counter(trial.key for trial in trials),
        "evaluation": Counter((each.trial, each.seed, each.rung) for each in evaluations),
    }
    wrong = [
        f"{what} {key} is there {count} times"
        for what, counter in counted.items()
        for key, count in counter.items()
        if count > 1
    ]
    if (numbers := [trial.number for trial in trials]) != list(range(len(trials))):
        wrong.append(f"the trials' numbers are {numbers}")
    return wrong


def ledger(url: str, study: int) -> list[Line]:
    """The lines of a study's account."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            statement = "select evaluation_id, kind, flops from ledger_entry where study_id = :id"
            return [tuple(row) for row in connection.execute(text(statement), {"id": study})]
    finally:
        engine.dispose()


def ledger_difference(lines: Iterable[Line], evaluations: Iterable[EvaluationRecord]) -> float:
    """FLOPs by which the account is not what the evaluations spent, in whole FLOPs."""
    spent, held = defaultdict(list), defaultdict(list)
    for evaluation, kind, flops in lines:
        if kind == "spend":
            spent[evaluation].append(flops)
        held[evaluation].append(flops if kind == "reserve" else -flops)
    charged = {each.id: each.flops for each in evaluations}
    difference = 0.0
    for id in charged.keys() | held.keys():
        difference += abs(round(math.fsum(spent[id]) - charged.get(id, 0.0)))
        difference += abs(round(math.fsum(held[id])))
    return difference


def differs(result: EvalResult, whole: EvalResult) -> str:
    """The first measure that is not that of the undisturbed evaluation; "" for none."""
    names = ("status", "bits_per_byte", "bits_per_byte_se", "loss", "windows", "steps", "tokens")
    for name in (*names, "trunk_flops", "active_flops", "activity", "stats"):
        if getattr(result, name) != getattr(whole, name):
            return f"{name} is {getattr(result, name)!r}, undisturbed {getattr(whole, name)!r}"[
                :300
            ]
    return ""
