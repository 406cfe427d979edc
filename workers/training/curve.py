"""The points of a trial's training curve."""

from __future__ import annotations

import time
from collections.abc import Callable

from search_space.contract import EvalRequest, Progress
from workers.layers.carried import Carried
from workers.training.meter import Meter

PROGRESS_POINTS = 40  # points of a trial's curve, besides the last


class Curve(Carried):
    """Reports about PROGRESS_POINTS points of a trial, each with the mean loss since the last."""

    def __init__(self, request: EvalRequest, report: Callable[[Progress], None]) -> None:
        self.request, self.report = request, report
        self.began = time.monotonic()
        self.loss_sum, self.losses = 0.0, 0
        self.next_flops = self.every = request.train_flops / PROGRESS_POINTS

    def add(self, step: int, loss: float, meter: Meter) -> None:
        """One step was done."""
        self.loss_sum, self.losses = self.loss_sum + loss, self.losses + 1
        if meter.spent < self.next_flops and meter.affords_a_step():
            return
        left = (self.request.train_flops * (1 + 1e-9) - meter.spent) / meter.price
        self.report(
            Progress(
                trial=self.request.trial,
                step=step,
                steps=step + int(left),
                flops=meter.spent,
                loss=self.loss_sum / self.losses,
                seconds=time.monotonic() - self.began,
            )
        )
        self.loss_sum, self.losses = 0.0, 0
        # Fixed marks: the last point then averages as many steps as the others.
        while self.next_flops <= meter.spent:
            self.next_flops += self.every

    def carried(self) -> dict[str, float]:
        """The losses since the last point, the next mark, and the seconds so far."""
        return {
            "loss_sum": self.loss_sum,
            "losses": self.losses,
            "next_flops": self.next_flops,
            "seconds": time.monotonic() - self.began,
        }

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on within a point that was begun."""
        self.loss_sum, self.losses = numbers["loss_sum"], int(numbers["losses"])
        self.next_flops = numbers["next_flops"]
        self.began = time.monotonic() - numbers["seconds"]
