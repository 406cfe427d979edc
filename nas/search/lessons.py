"""What the sampler is told of a study's trials, which were measured at different rungs.

More training lowers every design's bits per byte, so figures of two rungs are not comparable as
they are. A trial is told with the figure of its highest rung, less what runs that went on from
there gained on average up to the top. docs/rungs.md compares this with telling one rung alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from nas.search.bounds import violations
from nas.search.decisions import Plan
from nas.search.objectives import Figures, objective_values
from nas.search.pareto import frontier
from nas.search.sampler import MOST_TOLD, Told
from nas.store import EvaluationRecord, TrialRecord
from search_space.contract import FAILURES, Status

MOST_RUNNING = 256  # running trials that are told: they spread proposals out, and cost time


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What one trial teaches: its figures as they were measured at `rung`."""

    told: Told
    rung: int


class Lessons:
    """A fold over records, so that an ask costs the same at any length of a study.

    keys: of all designs that were tried.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._top = plan, len(plan.levels) - 1
        self._quality = plan.objectives.index("bits_per_byte")
        self.keys: set[str] = set()
        self._lessons: dict[int, _Lesson] = {}  # in the order of their first measurement
        self._running: dict[int, Told] = {}
        self._finished: dict[int, Figures] = {}  # at the top rung
        self._bits: dict[int, dict[int, float]] = {}  # of first runs, by trial and rung
        self._gains = [0.0] * self._top  # bits per byte from each rung to the next, summed
        self._pairs = [0] * self._top

    def put(self, trial: TrialRecord, evaluation: EvaluationRecord | None = None) -> None:
        """A trial as it stands, and the evaluation of it that ended, if one did."""
        number = trial.number
        self.keys.add(trial.key)
        if evaluation is not None and evaluation.seed == self._plan.seed:
            self._compare(evaluation)
        if trial.rung is not None:
            self._running.pop(number, None)
            self._learn(trial, trial.rung)
        elif trial.status is Status.RUNNING:
            self._running[number] = Told(params=trial.params, key=trial.key, running=True)
        else:
            self._running.pop(number, None)

    def told(self) -> list[Told]:
        """The newest measured trials, those on the frontier, and the newest running ones."""
        chosen: Iterable[int] = self._lessons
        if len(self._lessons) > MOST_TOLD:
            plan = self._plan
            front = frontier(list(self._finished.values()), plan.objectives, plan.bounds)
            newest = islice(reversed(self._lessons), MOST_TOLD)
            chosen = {*(trial.number for trial in front), *newest}
        corrections = self.corrections()
        told = [self._corrected(self._lessons[number], corrections) for number in sorted(chosen)]
        running = list(islice(reversed(self._running.values()), MOST_RUNNING))
        return [*told, *reversed(running)]

    def corrections(self) -> tuple[float, ...]:
        """What is added to bits per byte measured at each rung, to compare it with the top's."""
        steps = [
            total / pairs if pairs else 0.0
            for total, pairs in zip(self._gains, self._pairs, strict=True)
        ]
        return tuple(sum(steps[rung:]) for rung in range(self._top + 1))

    def _compare(self, evaluation: EvaluationRecord) -> None:
        """Learn from a run that was measured at two neighbouring rungs what training gains."""
        bits, rung = evaluation.bits_per_byte, evaluation.rung
        if evaluation.status is not Status.FINISHED or bits is None or not self._top:
            return
        mine = self._bits.setdefault(evaluation.trial, {})
        if rung in mine:
            return
        mine[rung] = bits
        for lower in (rung - 1, rung):
            if lower in mine and lower + 1 in mine:
                self._gains[lower] += mine[lower + 1] - mine[lower]
                self._pairs[lower] += 1

    def _learn(self, trial: TrialRecord, rung: int) -> None:
        number, before = trial.number, self._lessons.get(trial.number)
        # What was measured counts, whatever runs of it go on meanwhile.
        figures = Figures(number, trial.cost, trial.bits_per_byte, trial.active_flops)
        told = Told(
            params=trial.params,
            key=trial.key,
            # What a lower rung measured of a design that fails further on would recommend it.
            values=None
            if trial.status in FAILURES
            else objective_values(figures, self._plan.objectives),
            violations=violations(figures, self._plan.bounds),
            order=before.told.order if before else len(self._lessons),
        )
        self._lessons[number] = _Lesson(told, rung)
        if trial.status is Status.FINISHED:
            self._finished[number] = figures

    def _corrected(self, lesson: _Lesson, corrections: Sequence[float]) -> Told:
        told, place = lesson.told, self._quality
        if lesson.rung == self._top or told.values is None:
            return told
        bits = told.values[place] + corrections[lesson.rung]
        return Told(
            params=told.params,
            key=told.key,
            values=(*told.values[:place], bits, *told.values[place + 1 :]),
            violations=told.violations,
            order=told.order,
        )


def lessons(
    plan: Plan, trials: Iterable[TrialRecord], evaluations: Iterable[EvaluationRecord]
) -> Lessons:
    """The lessons of records that exist, in the order in which they ended."""
    found = Lessons(plan)
    by_number = {trial.number: trial for trial in trials}
    for trial in by_number.values():
        if trial.rung is None:
            found.put(trial)
    ended = [record for record in evaluations if record.ended_at is not None]
    for record in sorted(ended, key=lambda record: (record.ended_at, record.id)):
        found.put(by_number[record.trial], record)
    return found
