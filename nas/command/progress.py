"""The live display of a running study: bars on a terminal, a line an evaluation elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from nas.command.progress_words import ended_words, rung_words, study_words
from nas.config import StudyConfig
from nas.running.turn import Running, Turn
from nas.search.pareto import best, frontier
from nas.store import EvaluationRecord, StudyRecord
from search_space.contract import Status

DRAW_SECONDS = 0.25  # between two drawings on a terminal
LOOK_SECONDS = 1.0  # between two looks at all trials
LOOK_SHARE = 0.05  # of the time, at most, that these looks may take in a long study


class StudyDisplay:
    """A context manager; tell it `note` while preparing, then `started`, then `update`.

    A terminal or a pipe that is closed ends the display, and not the study.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, from any beginning."""
        self.console, self.clock = console, clock
        self.bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self.live = Live(console=console, refresh_per_second=4, transient=False)
        self.closed = False
        self.pending: Turn | None = None  # what is not drawn yet
        self.told: int | None = None  # trials whose first evaluation has its result
        self.next_drawing = self.next_look = -float("inf")
        self.found = ""  # by the last look at all trials
        self.done_before: float | None = None  # share of the budget when the display began
        # rich would end the process here, and with it the study.
        console.on_broken_pipe = self._close  # type: ignore[method-assign]

    def __enter__(self) -> StudyDisplay:
        if self.console.is_terminal:
            self._show(self.live.start)
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            if self.pending is not None:
                self.next_look = -float("inf")
                self._draw(self.pending)
            self._show(self.live.stop)

    def _show(self, draw: Callable[[], object]) -> None:
        if self.closed:
            return
        try:
            draw()
        except OSError:
            self._close()

    def _close(self) -> None:
        self.closed = self.console.quiet = True

    def note(self, text: str) -> None:
        """Say what is being prepared."""
        if self.console.is_terminal:
            self._show(lambda: self.live.update(f"{escape(text)} ..."))
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        # A log is searched by line: it must not be cut at a terminal's width.
        self._show(lambda: self.console.print(escape(text), soft_wrap=True))

    def started(self, study: StudyRecord, config: StudyConfig) -> None:
        """The study is stored and its trials begin, or go on."""
        self.study, self.config, self.began = study, config, self.clock()
        self.bounds, self.top = config.limits(), config.budget.rungs - 1
        for line in study_words(study, config):
            self._print(line)
        self.trial_bar = self.bars.add_task("trials", total=config.budget.trials, text="")
        self.flop_bar = self.bars.add_task("FLOPs", total=100, text="")

    def update(self, turn: Turn) -> None:
        """Show what has happened; takes time for what runs and ended, not for all trials."""
        if self.console.is_terminal:
            self.pending = turn
            if self.clock() >= self.next_drawing:
                self._draw(turn)
        else:
            self._tell(turn)

    # A line an evaluation that ended.

    def _tell(self, turn: Turn) -> None:
        new = [evaluation for _, evaluation in turn.ended if self._is_first(evaluation)]
        if self.told is None:  # a study that goes on
            known = sum(t.rung is not None or t.status.final for t in turn.trials)
            self.told = known - len(new)
        for trial, evaluation in turn.ended:
            self.told += self._is_first(evaluation)
            words = ended_words(trial, evaluation, self.top, self.study.seed, self.bounds)
            self._print(f"[{self.told}/{self.config.budget.trials}] {words}")

    def _is_first(self, evaluation: EvaluationRecord) -> bool:
        """Whether it is the first result of its trial."""
        first = evaluation.rung == 0 and evaluation.seed == self.study.seed
        return first and evaluation.status.final

    # Bars and a table of what runs.

    def _draw(self, turn: Turn) -> None:
        self.pending = None
        self.next_drawing = self.clock() + DRAW_SECONDS
        if self.clock() >= self.next_look:
            self._look(turn)
        budget = self.study.budget_flops
        spent = turn.counts.charged + sum(map(_flops, turn.running))
        self.bars.update(
            self.trial_bar,
            completed=turn.counts.trials,
            text=f"begun, {len(turn.running)} evaluations run{self.found}",
        )
        self.bars.update(
            self.flop_bar,
            completed=round(100 * spent / budget),
            text=f"{spent:.2e} of {budget:.2e} {self._time_left(spent / budget)}",
        )
        table = _running_table(turn.running, self.top, self.study.seed)
        self._show(lambda: self.live.update(Group(self.bars, table)))

    def _look(self, turn: Turn) -> None:
        """What only a look at all trials tells: seldom, for its time grows with the study."""
        began = self.clock()
        trials = list(turn.trials)
        paused = sum(trial.status is Status.PAUSED for trial in trials)
        first = best(trials, self.bounds)
        front = frontier(trials, self.study.objectives, self.bounds)
        self.found = f", {paused} paused" if self.top else ""
        self.found += f", frontier {len(front)}"
        if first is not None:
            self.found += f", best {first.bits_per_byte:.3f} bits per byte"
        took = self.clock() - began
        self.next_look = self.clock() + max(LOOK_SECONDS, took / LOOK_SHARE)

    def _time_left(self, done: float) -> str:
        """From the share of the budget that was spent since the display began."""
        if self.done_before is None:
            self.done_before = done
        gained = done - self.done_before
        if gained < 0.02:
            return ""
        seconds = (self.clock() - self.began) * max(0.0, 1 - done) / gained
        return f"about {seconds / 60:.0f} min left"


def _flops(running: Running) -> float:
    """What a running evaluation has spent beyond what is charged for it."""
    if running.progress is None:
        return 0.0
    evaluation = running.evaluation
    return max(0.0, running.progress.flops - evaluation.start_flops - evaluation.flops)


def _running_table(running: list[Running], top: int, first_seed: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for each in running:
        progress = each.progress
        step = f"step {progress.step}/{progress.steps}" if progress else "starting"
        loss = f"loss {progress.loss:.3f}" if progress else ""
        where = rung_words(each.evaluation, top, first_seed)
        # Of a label, what looks like markup is text.
        table.add_row(
            f"  trial {each.trial.number}", escape(each.trial.spec.label), where, step, loss
        )
    return table
