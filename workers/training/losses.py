"""The losses of steps: added up where they are computed, and read where somebody wants them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workers.kernels.place import kind


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


class Losses:
    """The losses since the last point of a curve.

    A CPU's are read one by one, which costs nothing there, so that the step that diverges is the
    last. A GPU would be waited for: it keeps their sum, how many there are, and which was the first
    that was no number, and is asked at a point.

    count: of the losses.
    newest: the step of the newest.
    """

    def __init__(self) -> None:
        self.count, self.newest, self.total = 0, 0, 0.0
        # Sum, how many, the first that is no number (0 for none), and that; on a GPU.
        self.kept_4: Tensor | None = None

    def add(self, loss: Tensor | float, step: int) -> None:
        """The loss of a step, in nats. Raises Diverged on a CPU."""
        if not isinstance(loss, Tensor) or kind(loss) == "cpu":
            value = float(loss)
            if not math.isfinite(value):
                raise Diverged(f"the loss is {value} at step {step}")
            self.total += value
        else:
            self._keep(loss.detach().double())

    def counted(self, step: int) -> None:
        """The host's part of `add`, which a graph of the step leaves out."""
        self.count, self.newest = self.count + 1, step

    def _keep(self, loss: Tensor) -> None:
        """Without asking the device, and in place: a graph of the step may hold the address."""
        if self.kept_4 is None:
            self.kept_4 = torch.zeros(4, dtype=torch.float64, device=loss.device)
        total, seen, first, value = self.kept_4.unbind()
        total.add_(loss)
        seen.add_(1)
        bad = ~loss.isfinite() & (first == 0)
        value.copy_(torch.where(bad, loss, value))
        first.copy_(torch.where(bad, seen, first))

    @property
    def known(self) -> float | None:
        """Their mean, where nobody has to be asked for it."""
        return self.total / self.count if self.count and self.kept_4 is None else None

    def sum(self) -> float:
        """Their sum, asking the device. Raises Diverged if one was no number."""
        if self.kept_4 is None:
            return self.total
        total, _, first, value = self.kept_4.tolist()
        if first:
            raise Diverged(f"the loss is {value} at step {self.newest - self.count + int(first)}")
        return self.total + float(total)

    def begin(self, total: float = 0.0, count: int = 0) -> None:
        """Count anew, from what a former worker had."""
        self.total, self.count = total, count
        if self.kept_4 is not None:
            self.kept_4.zero_()
