"""The live display of a running study: bars on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from nas.bounds import excess, words
from nas.config import StudyConfig
from nas.driver import Snapshot
from nas.pareto import best, frontier
from nas.store import StudyRecord, TrialRecord


class StudyDisplay:
    """A context manager; tell it `note` while preparing, then `started`, then `update`.

    A terminal or a pipe that is closed ends the display, and not the study.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self.live = Live(console=console, refresh_per_second=4, transient=False)
        self.told: set[int] = set()
        self.closed = False
        # rich would end the process here, and with it the study.
        console.on_broken_pipe = self._close  # type: ignore[method-assign]

    def __enter__(self) -> StudyDisplay:
        if self.console.is_terminal:
            self._show(self.live.start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
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
            self._print(escape(text))

    def _print(self, text: str) -> None:
        # A log is searched by line: it must not be cut at a terminal's width.
        self._show(lambda: self.console.print(text, soft_wrap=True))

    def started(self, study: StudyRecord, config: StudyConfig) -> None:
        """The study is stored and its trials begin."""
        self.study, self.config, self.began = study, config, time.monotonic()
        self.bounds = config.limits()
        corpus = study.facts["corpus"]
        ngrams = study.facts["ngram_bits_per_byte"]
        self._print(
            f"study [bold]{study.name}[/]: {config.budget.trials} trials of "
            f"{config.budget.trial_flops:.3g} FLOPs on {escape(corpus['source'])} "
            f"({corpus['tokens']['train']:,} training tokens)"
        )
        for note in corpus.get("notes", ()):
            self._print(f"corpus: {escape(note)}")
        shown = ", ".join(f"n={n} {bits:.3f}" for n, bits in sorted(ngrams.items()))
        self._print(f"interpolated byte n-grams on the same split, bits per byte: {shown}")
        self.trial_bar = self.bars.add_task("trials", total=config.budget.trials, text="")
        self.flop_bar = self.bars.add_task("FLOPs", total=100, text="")

    def update(self, snapshot: Snapshot) -> None:
        """Show the state of the trials."""
        ended = [trial for trial in snapshot.trials if trial.status.ended]
        for trial in ended:
            if trial.id not in self.told:
                self.told.add(trial.id)
                if not self.console.is_terminal:
                    done = f"[{len(ended)}/{self.config.budget.trials}] {_line(trial, self.bounds)}"
                    self._print(escape(done))
        if self.console.is_terminal:
            self._draw(snapshot, len(ended))

    def _draw(self, snapshot: Snapshot, ended: int) -> None:
        budget = self.study.budget_flops
        training = sum(p.flops for p in snapshot.running.values())
        done = (snapshot.spent + training) / budget
        running = len(snapshot.trials) - ended
        first = best(snapshot.trials, self.bounds)
        front = frontier(snapshot.trials, self.study.objectives, self.bounds)
        text = f"{running} running, frontier {len(front)}"
        if first is not None and first.result is not None:
            text += f", best {first.result.bits_per_byte:.3f} bits per byte"
        left = ""
        if done > 0.02:
            seconds = (time.monotonic() - self.began) * (1 - done) / done
            left = f"about {seconds / 60:.0f} min left"
        self.bars.update(self.trial_bar, completed=ended, text=text)
        self.bars.update(
            self.flop_bar,
            completed=round(100 * done),
            text=f"{snapshot.spent + training:.2e} of {budget:.2e} {left}",
        )
        self._show(lambda: self.live.update(Group(self.bars, _running_table(snapshot))))


def _line(trial: TrialRecord, bounds: Mapping[str, float]) -> str:
    result = trial.result
    assert result is not None
    if result.bits_per_byte is None:
        return f"trial {trial.number} {trial.spec.label}: {trial.status.value}: {result.error}"
    over = words(excess(trial, bounds))
    return (
        f"trial {trial.number} {trial.spec.label}: {result.bits_per_byte:.4f} bits per byte, "
        f"{result.seconds:.0f} s{f', infeasible: {over}' if over else ''}"
    )


def _running_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for trial in snapshot.trials:
        if trial.status.ended:
            continue
        progress = snapshot.running.get(trial.id)
        step = f"step {progress.step}/{progress.steps}" if progress else "starting"
        loss = f"loss {progress.loss:.3f}" if progress else ""
        table.add_row(f"  trial {trial.number}", trial.spec.label, step, loss)
    return table
