"""The loop: ask for a design, price it, reserve its FLOPs, run it, record how it ended."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas import interrupts
from nas.bounds import violations
from nas.checkpoints import state_folder, trial_folder
from nas.config import StudyConfig
from nas.objectives import objective_values
from nas.pool import Event, Pool
from nas.sampler import Sampler, SpaceExhausted, Told
from nas.store import Store, StudyRecord, TrialRecord
from nas.store.outage import StoreLost
from search_space.contract import EvalRequest, EvalResult, Progress, Status, WorkerLost
from search_space.cost import model_cost
from search_space.errors import WorkFailed
from search_space.spec import FFNSpec

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
MOST_LOSSES = 3  # workers that a trial may lose before it is set aside
MOST_FAILURES = 5  # trials that fail one after another before the study gives up


class StudyFailed(WorkFailed):
    """The study cannot go on; the text says what its last trials died of."""


@dataclass(frozen=True)
class Snapshot:
    """What a display needs: the study's trials and the last progress of the running ones."""

    trials: list[TrialRecord]
    running: dict[int, Progress]
    spent: float
    refused: int


def told(trial: TrialRecord, objectives: Sequence[str], bounds: Mapping[str, float]) -> Told:
    """A trial in the sampler's words: values, and violations of the bounds where measured."""
    return Told(
        params=trial.params,
        key=trial.key,
        values=objective_values(trial, objectives),
        violations=violations(trial, bounds),
        running=trial.status is Status.RUNNING,
    )


class Driver:
    """Runs one study on one pool; it leaves the store behind, and checkpoints in `folder`."""

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        config: StudyConfig,
        pool: Pool,
        corpus_dir: str,
        folder: Path,
    ) -> None:
        self.store, self.study, self.config, self.pool = store, study, config, pool
        self.corpus_dir, self.folder = corpus_dir, folder
        self.sampler = Sampler(
            space=config.space,
            backbone=config.backbone,
            objectives=config.objectives,
            constraints=config.constraints,
            seed=config.seed,
            kind=config.sampler,
        )
        self.warm_starts = list(config.warm_start_specs())
        # The driver is the study's only writer, so it need not read back what it wrote.
        self.trials = {trial.id: trial for trial in store.trials(study.id)}
        self.running: dict[int, EvalRequest] = {}
        self.lost: Counter[int] = Counter()  # workers, by trial
        self.progress: dict[int, Progress] = {}
        self.refused = self.failures = 0
        self.last_error = ""
        self.exhausted = False

    def run(self, listen: Callable[[Snapshot], None] = lambda snapshot: None) -> None:
        """Until the budget is spent. On any exception what runs is recorded as stopped.

        A signal that was noted raises KeyboardInterrupt between two turns.
        """
        try:
            while True:
                while self._may_start():
                    interrupts.check()
                    self._start()
                if not self.running:
                    break
                for event in self.pool.events(POLL_SECONDS):
                    self._record(event)
                # After the whole turn: what else came in with the last failure is in hand.
                if self.failures >= MOST_FAILURES:
                    raise StudyFailed(
                        f"{self.failures} trials in a row failed; the last: {self.last_error}"
                    )
                listen(self._snapshot())
                interrupts.check()
        except BaseException:
            self._stop_running()
            raise

    def _may_start(self) -> bool:
        """Whether a slot, a trial and its FLOPs are left."""
        budget = self.config.budget
        left = self.store.ledger(self.study.id).left
        return (
            not self.exhausted
            and len(self.running) < self.pool.slots
            and len(self.trials) < budget.trials
            and left >= budget.trial_flops
        )

    def _start(self) -> None:
        """Store the next design and hand it to the pool."""
        trials = list(self.trials.values())
        known = {trial.key for trial in trials}
        warm = [(name, spec) for name, spec in self.warm_starts if spec.key not in known]
        if warm:
            source, spec = warm[0]
            params = self.sampler.params(spec)
        else:
            try:
                proposal = self.sampler.propose(len(trials), self._told(trials))
            except SpaceExhausted as error:
                log.warning("no new design is left: %s", error)
                self.exhausted = True
                return
            source, spec, params = proposal.source, proposal.spec, proposal.params
            self.refused += proposal.refused
        trial = self.store.add_trial(
            self.study.id,
            spec,
            seed=self.config.seed,
            source=source,
            params=params,
            train_flops=self.config.budget.trial_flops,
            cost=model_cost(spec, self.config.backbone).to_dict(),
        )
        self.trials[trial.id] = trial
        self.running[trial.id] = self._request(trial, spec)
        self.pool.submit(self.running[trial.id])

    def _told(self, trials: Sequence[TrialRecord]) -> list[Told]:
        """The trials in the sampler's words."""
        bounds = self.config.limits()
        return [told(trial, self.config.objectives, bounds) for trial in trials]

    def _request(self, trial: TrialRecord, spec: FFNSpec) -> EvalRequest:
        config = self.config
        return EvalRequest(
            trial=trial.id,
            spec=spec,
            backbone=config.backbone,
            recipe=config.recipe,
            corpus_dir=self.corpus_dir,
            train_flops=trial.train_flops,
            seed=trial.seed,
            eval_tokens=config.eval_tokens,
            checkpoint_dir=str(self.folder / trial_folder(trial)),
            state_dir=str(self.folder / state_folder(trial)),
            study=self.study.uid,
            number=trial.number,
            device=config.workers.device,
            threads=config.workers.threads,
        )

    def _record(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.store.add_progress([event])
            self.progress[event.trial] = event
        elif isinstance(event, WorkerLost):
            self._take_up_again(event)
        else:
            self._finish(event)

    def _take_up_again(self, event: WorkerLost) -> None:
        """Give the trial to another worker, which goes on from its last state; in the end, fail."""
        self.lost[event.trial] += 1
        count = self.lost[event.trial]
        if interrupts.asked() or count == MOST_LOSSES:
            error = f"{event.error}; it was the last of {count} workers that this trial may lose"
            self._finish(EvalResult(trial=event.trial, status=event.status, error=error))
            return
        request = self.running[event.trial]
        log.warning("trial %d: %s; another worker takes it up", request.number, event.error)
        # A checkpoint that was written but not told of is nobody's.
        shutil.rmtree(request.checkpoint_dir, ignore_errors=True)
        self.pool.submit(request)

    def _finish(self, event: EvalResult) -> None:
        if interrupts.asked() and event.status is Status.FAILED:
            # A signal to the whole process group ends the workers, too.
            event = _stopped(event.trial)
        ended = self._end(event)
        self.progress.pop(event.trial, None)
        if lost := event.stats.get("checkpoint_error"):
            log.warning("trial %d is measured, its weights are lost: %s", ended.number, lost)
        self.failures = self.failures + 1 if ended.status is Status.FAILED else 0
        self.last_error = ended.result.error if ended.result else ""

    def _end(self, result: EvalResult) -> TrialRecord:
        ended = self.store.end_trial(self._with_flops(result))
        self.trials[ended.id] = ended
        del self.running[ended.id]
        return ended

    def _with_flops(self, result: EvalResult) -> EvalResult:
        """A worker that died could not say what it spent: the last progress did."""
        seen = self.progress.get(result.trial)
        if seen is None or result.flops >= seen.flops:
            return result
        return dataclasses.replace(result, flops=seen.flops, seconds=seen.seconds)

    def _stop_running(self) -> None:
        """Record what runs as stopped; what ended the study is told before what fails here."""
        for trial in list(self.running):
            try:
                self._end(_stopped(trial))
            except StoreLost as error:
                # The others would fail of the same, each after its own wait.
                numbers = ", ".join(str(self.trials[each].number) for each in self.running)
                log.warning("not recorded as stopped: trial %s: %s", numbers, error)
                return
            except Exception as error:
                number = self.trials[trial].number
                log.warning("trial %d could not be recorded as stopped: %s", number, error)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            trials=list(self.trials.values()),
            running=dict(self.progress),
            spent=self.store.ledger(self.study.id).spent,
            refused=self.refused,
        )


def _stopped(trial: int) -> EvalResult:
    return EvalResult(
        trial=trial, status=Status.STOPPED, error="the study was stopped before it ended"
    )
