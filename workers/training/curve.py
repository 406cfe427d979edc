"""The points of a run's training curve."""

from __future__ import annotations

from collections.abc import Callable

from search_space.contract import EvalRequest, Progress
from workers.training.carried import Carried
from workers.training.losses import Losses
from workers.training.meter import Meter
from workers.training.visit import Visit

PROGRESS_POINTS = 40  # points of a curve besides the last, where the request does not say


class Curve(Carried):
    """Reports a point at each multiple of `curve_flops`, with the mean loss since the last.

    The marks lie along the run, so a trunk has the same points wherever it pauses. What the rung
    below has reported is not reported again. A GPU is asked for its losses at points alone.
    """

    def __init__(
        self, request: EvalRequest, visit: Visit, report: Callable[[Progress], None]
    ) -> None:
        self.request, self.visit, self.report = request, visit, report
        self.every = request.curve_flops or request.until_flops / PROGRESS_POINTS
        self.losses, self.at = Losses(), 0.0

    def add(self, step: int, meter: Meter) -> None:
        """One step was done, and its loss added to `losses`."""
        self.losses.counted(step)
        if self._passes(meter):
            meter.settle()
            if self._passes(meter):
                self._point(step, meter)
        self.at = meter.spent

    def _passes(self, meter: Meter) -> bool:
        return meter.spent // self.every > self.at // self.every

    def end(self, step: int, meter: Meter) -> None:
        """The evaluation's training is done: the last point has what no mark has told."""
        if self.losses.count:
            meter.settle()
            self._point(step, meter)

    def _point(self, step: int, meter: Meter) -> None:
        loss = self.losses.sum() / self.losses.count
        self.losses.begin()
        if meter.spent <= self.request.start_flops:
            return
        left = (self.request.until_flops * (1 + 1e-9) - meter.spent) / meter.price
        self.report(
            Progress(
                evaluation=self.request.evaluation,
                attempt=self.request.attempt,
                step=step,
                steps=step + int(left),
                flops=meter.spent,
                loss=loss,
                seconds=self.visit.seconds,
            )
        )

    def carried(self) -> dict[str, float]:
        """The losses since the last point, and how far they go."""
        losses = self.losses
        return {"loss_sum": losses.sum(), "losses": losses.count, "at": self.at}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on within a point that was begun."""
        self.losses.begin(numbers["loss_sum"], int(numbers["losses"]))
        self.at = numbers["at"]
