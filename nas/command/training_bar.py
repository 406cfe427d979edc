"""The display of `nas train`: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from nas.models.train_run import Point

LINE_SECONDS = 30.0  # between two lines where there is no terminal
DRAW_SECONDS = 0.25


class TrainingBar:
    """A context manager; tell it `note` and `listen`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self.task: TaskID | None = None
        self.next = 0.0 if console.is_terminal else time.monotonic() + LINE_SECONDS

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.task is not None and self.console.is_terminal:
            self.bar.stop()

    def note(self, text: str) -> None:
        """Say what is done."""
        self.console.print(text, markup=False, soft_wrap=True)

    def listen(self, point: Point) -> None:
        """Show how far the training is."""
        now = time.monotonic()
        if now < self.next:
            return
        terminal = self.console.is_terminal
        self.next = now + (DRAW_SECONDS if terminal else LINE_SECONDS)
        if not terminal:
            self.note(f"{point.flops / point.until:.0%} of {point.until:.3g} FLOPs, {words(point)}")
            return
        if self.task is None:
            self.bar.start()
            self.task = self.bar.add_task("FLOPs", total=point.until, text="")
        self.bar.update(self.task, completed=point.flops, text=words(point))


def words(point: Point) -> str:
    """Step, loss, speed and the time left."""
    text = f"step {point.step}, loss {point.loss:.3f}, {point.rate:,.0f} tokens/s"
    if point.left is None:
        return text
    if point.left < 90:
        return f"{text}, {point.left:.0f} s left"
    hours, minutes = divmod(round(point.left / 60), 60)
    return f"{text}, {f'{hours} h ' if hours else ''}{minutes} min left"
