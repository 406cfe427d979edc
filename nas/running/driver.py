"""The loop: ask the scheduler what next, have it done, record how it ended.

The driver keeps nothing that the store does not have: it is made anew of a study's records, and
goes on with a study that was stopped or killed as if it had not been.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.config import StudyConfig
from nas.process import interrupts
from nas.running.files import RunFiles
from nas.running.log_lines import WaitingLines
from nas.running.pool import Event, Pool
from nas.running.turn import Running, Turn
from nas.search.decisions import Done, Promote, Repeat, Start, TakeUp, Wait
from nas.search.lessons import lessons
from nas.search.sampler import Sampler, SpaceExhausted
from nas.search.scheduler import Board
from nas.store import EvaluationRecord, Hold, LeaseLost, Store, StudyRecord, TrialRecord
from nas.store.holds import STOP
from nas.store.outage import StoreLost
from search_space.contract import EvalRequest, EvalResult, LogLine, Progress, Status, WorkerLost
from search_space.cost import model_cost
from search_space.errors import WorkFailed

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
RENEW_SECONDS = 5.0  # between two signs of life in the store, where `nas stop` is heard
MOST_LOSSES = 3  # workers that an evaluation may lose before its design is set aside
MOST_FAILURES = 5  # evaluations that fail one after another before the study gives up
CURVE_POINTS = 16  # of the lowest rung, when there are several


class StudyFailed(WorkFailed):
    """The study cannot go on; the text says what its last evaluations died of."""


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
        hold: Hold,
    ) -> None:
        self.store, self.study, self.config, self.pool = store, study, config, pool
        self.corpus_dir, self.hold = corpus_dir, hold
        self.plan = config.plan()
        top = len(self.plan.levels) - 1
        self.files = RunFiles(study, folder, config.workers.state_url, top)
        self.sampler = Sampler(
            space=config.space,
            backbone=config.backbone,
            objectives=config.objectives,
            constraints=config.constraints,
            seed=config.seed,
            kind=config.sampler,
        )
        self.warm_starts = {spec.key: (name, spec) for name, spec in config.warm_start_specs()}
        # The driver is the study's only writer, so it need not read back what it wrote.
        self.trials = {t.number: t for t in store.trials(study.id, stats=False)}
        self.board, evaluations = Board(self.plan), store.evaluations(study.id)
        for trial in self.trials.values():
            self._put_trial(trial)
        for evaluation in evaluations:
            self.board.put(evaluation)
        self.lessons = lessons(self.plan, self.trials.values(), evaluations)
        self.files.discard_left(evaluations)
        self.requests: dict[int, EvalRequest] = {}  # of what runs, by evaluation
        self.running: dict[int, Running] = {}
        self.lines = WaitingLines()
        self.ended: list[tuple[TrialRecord, EvaluationRecord]] = []
        self.refused = self.failures = 0
        self.last_error, self.exhausted, self.renewed = "", False, time.monotonic()
        self.unfit = ""  # why a worker's machine can do no evaluation

    def run(self, listen: Callable[[Turn], None] = lambda turn: None) -> None:
        """Until nothing is left to do. On any exception what runs is recorded as stopped.

        A signal that was noted raises KeyboardInterrupt between two turns.
        """
        try:
            while True:
                self._fill()
                if not self.requests:
                    break
                self._record(self.pool.events(POLL_SECONDS))
                self._check_failures()  # after the whole turn: what else came in is in hand
                listen(self._turn())
                self._renew()
                interrupts.check()
        except BaseException as error:
            self._stop_running(error)
            raise

    # What next.

    def _fill(self) -> None:
        """Give the pool what it has room for."""
        while len(self.requests) < self.pool.slots:
            interrupts.check()
            self._renew()  # a thousand asks can take longer than a hold lasts
            known = self.lessons.keys
            decision = self.board.decide(
                held=self.requests.keys(),
                warm_left=sum(key not in known for key in self.warm_starts),
                exhausted=self.exhausted,
            )
            match decision:
                case Start():
                    self._start()
                case TakeUp():
                    self._take_up()
                case Promote(below, rung):
                    self._begin(self.trials[below.trial], below.seed, rung, below.trunk_flops)
                case Repeat(number, seed):
                    self._begin(self.trials[number], seed, rung=len(self.plan.levels) - 1)
                case Wait() | Done():
                    return

    def _start(self) -> None:
        """Store the next design and hand its first evaluation to the pool."""
        warm = [(n, s) for key, (n, s) in self.warm_starts.items() if key not in self.lessons.keys]
        if warm:
            source, spec = warm[0]
            params = self.sampler.params(spec)
        else:
            try:
                proposal = self.sampler.propose(
                    len(self.trials), self.lessons.told(), self.lessons.keys
                )
            except SpaceExhausted as error:
                log.warning("no new design is left: %s", error)
                self.exhausted = True
                return
            source, spec, params = proposal.source, proposal.spec, proposal.params
            self.refused += proposal.refused
        trial, evaluation = self.store.add_trial(
            self.study.id,
            spec,
            seed=self.config.seed,
            source=source,
            params=params,
            until_flops=self.plan.levels[0],
            cost=model_cost(spec, self.config.backbone).to_dict(),
            hold=self.hold,
        )
        self.trials[trial.number] = trial
        self._put_trial(trial)
        self.lessons.put(trial)
        self._submit(evaluation)

    def _put_trial(self, trial: TrialRecord) -> None:
        self.board.put_trial(trial.number, trial.key in self.warm_starts, trial.cost)

    def _begin(self, trial: TrialRecord, seed: int, rung: int, start_flops: float = 0.0) -> None:
        """Store an evaluation of a trial that there is, and hand it to the pool."""
        self._submit(
            self.store.add_evaluation(
                self.study.id,
                trial.id,
                seed=seed,
                rung=rung,
                until_flops=self.plan.levels[rung],
                start_flops=start_flops,
                hold=self.hold,
            )
        )

    def _take_up(self) -> None:
        """Go on with what a former driver left; the pool's worker finds its last state."""
        evaluation = self.store.claim(self.study.id, self.hold.owner, self.hold)
        if evaluation is None:
            raise WorkFailed(
                f"study {self.study.name} has evaluations that somebody else works on; "
                "nothing is trained twice"
            )
        log.warning("trial %d is taken up again at rung %d", evaluation.trial, evaluation.rung)
        self.lines.say(evaluation, "info", "taken up again: its driver was stopped, or is gone")
        self._submit(evaluation)

    def _submit(self, evaluation: EvaluationRecord) -> None:
        self.board.put(evaluation)
        request = self._request(evaluation)
        self.requests[evaluation.id] = request
        self.running[evaluation.id] = Running(self.trials[evaluation.trial], evaluation, None)
        self.pool.submit(request)

    def _request(self, evaluation: EvaluationRecord) -> EvalRequest:
        config, top = self.config, len(self.plan.levels) - 1
        return EvalRequest(
            evaluation=evaluation.id,
            attempt=evaluation.attempt,
            study=self.study.uid,
            number=evaluation.trial,
            rung=evaluation.rung,
            spec=self.trials[evaluation.trial].spec,
            backbone=config.backbone,
            recipe=config.recipe,
            corpus_dir=self.corpus_dir,
            until_flops=evaluation.until_flops,
            run_flops=self.plan.levels[-1],
            start_flops=evaluation.start_flops,
            seed=evaluation.seed,
            eval_tokens=config.eval_tokens,
            curve_flops=self.plan.levels[0] / CURVE_POINTS if top else 0.0,
            checkpoint_dir=self.files.weights(evaluation),
            state_dir=self.files.states(evaluation),
            keep_trunk=evaluation.rung < top,
            device=config.workers.device,
            threads=config.workers.threads,
        )

    # What happened.

    def _record(self, events: Sequence[Event]) -> None:
        """Store what came in: all points of curves together, then the endings in their order."""
        points = [each for each in events if isinstance(each, Progress) and self._counts(each)]
        self.lines.hear(e for e in events if isinstance(e, LogLine) and self._counts(e))
        self._note(points)
        for event in events:
            if isinstance(event, Progress | LogLine) or not self._counts(event):
                continue
            if isinstance(event, WorkerLost):
                self._hand_over(event)
            else:
                self._finish(event)

    def _counts(self, event: Event) -> bool:
        """Whether an event is of an attempt that runs; a worker that was given up may send, too."""
        request = self.requests.get(event.evaluation)
        return request is not None and (
            isinstance(event, WorkerLost) or event.attempt == request.attempt
        )

    def _note(self, points: list[Progress]) -> None:
        if points:
            with self.lines.stored() as lines:
                self.store.add_progress(points, lines)
        for point in points:
            seen = self.running[point.evaluation]
            self.running[point.evaluation] = dataclasses.replace(seen, progress=point)

    def _hand_over(self, event: WorkerLost) -> None:
        """Give the evaluation to another worker, which goes on from its last state; or fail it."""
        seen = self.running[event.evaluation]
        count = seen.evaluation.losses + 1
        if interrupts.asked() or count >= MOST_LOSSES:
            error = f"{event.error}; it was the last of {count} workers that an evaluation may lose"
            self._finish(self._ending(event.evaluation, event.status, error))
            return
        log.warning("trial %d: %s; another worker takes it up", seen.trial.number, event.error)
        with self.lines.stored() as lines:
            evaluation = self.store.worker_lost(
                event.evaluation, seen.evaluation.attempt, self.hold.owner, lines
            )
        self.lines.say(evaluation, "warning", f"{event.error}; another worker takes it up")
        self._submit(evaluation)

    def _ending(self, evaluation: int, status: Status, error: str) -> EvalResult:
        """An ending that no worker told of."""
        attempt = self.requests[evaluation].attempt
        return EvalResult(evaluation=evaluation, attempt=attempt, status=status, error=error)

    def _finish(self, event: EvalResult) -> None:
        if interrupts.asked() and event.status is Status.FAILED:
            # A signal to the whole process group ends the workers, too.
            event = self._ending(event.evaluation, Status.STOPPED, _STOPPED)
        trial, ended = self._end(event)
        if lost := event.stats.get("checkpoint_error"):
            log.warning("trial %d is measured, its weights are lost: %s", trial.number, lost)
        self.failures = self.failures + 1 if ended.status is Status.FAILED else 0
        self.last_error = ended.error
        if event.status is Status.STOPPED and not interrupts.asked():
            self.unfit = ended.error

    def _check_failures(self) -> None:
        if self.unfit:
            raise WorkFailed(f"{self.unfit}; then go on with: nas resume {self.study.name}")
        if self.failures >= MOST_FAILURES:
            raise StudyFailed(
                f"{self.failures} evaluations in a row failed; the last: {self.last_error}"
            )

    def _end(self, result: EvalResult) -> tuple[TrialRecord, EvaluationRecord]:
        with self.lines.stored() as lines:
            told = self.running[result.evaluation].with_flops(result)
            trial, ended = self.store.end_evaluation(told, lines)
        # Of a result only what is shown stays in memory.
        if trial.result is not None:
            trial = dataclasses.replace(trial, result=dataclasses.replace(trial.result, stats={}))
        self.trials[trial.number] = trial
        self.board.put(ended)
        self.lessons.put(trial, ended)
        self.ended.append((trial, ended))
        del self.requests[ended.id], self.running[ended.id]
        self.files.discard_after(ended)
        return trial, ended

    def _renew(self) -> None:
        """Show the store that this driver lives, and hear whether it is asked to stop."""
        if time.monotonic() - self.renewed < RENEW_SECONDS:
            return
        with self.lines.stored() as lines:
            asked = self.store.renew(self.hold, lines)
        self.renewed = time.monotonic()
        if asked == STOP:
            raise KeyboardInterrupt("`nas stop` asked for it")

    def _stop_running(self, reason: BaseException) -> None:
        """Record what runs as stopped; what ended the study is told before what fails here."""
        if isinstance(reason, LeaseLost):
            return  # another driver goes on with it
        for id in list(self.requests):
            number = self.running[id].trial.number
            try:
                self._end(self._ending(id, Status.STOPPED, _STOPPED))
            except StoreLost as error:
                # The others would fail of the same, each after its own wait.
                numbers = ", ".join(str(each.trial.number) for each in self.running.values())
                log.warning("not recorded as stopped: trial %s: %s", numbers, error)
                return
            except Exception as error:
                log.warning("trial %d could not be recorded as stopped: %s", number, error)

    def _turn(self) -> Turn:
        ended, self.ended = self.ended, []
        return Turn(
            trials=self.trials.values(),
            running=list(self.running.values()),
            ended=ended,
            counts=self.board.counts(),
            refused=self.refused,
        )


_STOPPED = "the study was stopped before it ended; it can be resumed"
