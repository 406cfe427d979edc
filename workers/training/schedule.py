"""The learning rate's factor: on the trunk by the step alone, on the branch falling to a rung."""

from __future__ import annotations

import math
from collections.abc import Callable

from search_space.contract import EvalRequest
from workers.training.carried import Carried
from workers.training.meter import Meter

Trunk = Callable[[int], float]  # steps done -> factor of the coming step's rates, warmup aside


def constant(step: int) -> float:
    """The product's trunk (docs/recipe.md has the comparison with others)."""
    return 1.0


class Schedule(Carried):
    """Warmup, a trunk, and the branch that leaves it for the request's rung.

    The trunk knows no rung, so a run that stops at one and a run that goes on have the same past.
    left: the run's model FLOPs where the branch left the trunk; None on the trunk.
    """

    def __init__(self, request: EvalRequest, trunk: Trunk = constant) -> None:
        self.recipe, self.until_flops, self.trunk = request.recipe, request.until_flops, trunk
        self.trunk_level = (1 - request.recipe.decay) * request.until_flops
        self.left: float | None = None

    @property
    def level(self) -> float:
        """Model FLOPs that the trunk, or the branch where training is on it, may reach."""
        return self.trunk_level if self.left is None else self.until_flops

    def leave(self, meter: Meter) -> None:
        """The branch begins here."""
        self.left = meter.spent

    def factor(self, step: int, meter: Meter) -> float:
        """Of the rates in the step after `step` steps, in the middle of it.

        The branch falls as 1 - sqrt of its share that is spent (Hagele et al. 2024).
        """
        warmup = self.recipe.warmup
        factor = self.trunk(step) * (min(1.0, (step + 0.5) / warmup) if warmup else 1.0)
        if self.left is None:
            return factor
        share = (meter.spent + meter.price / 2 - self.left) / (self.until_flops - self.left)
        return factor * (1 - math.sqrt(min(1.0, share)))

    def carried(self) -> dict[str, float]:
        """Where the branch left the trunk, once it has."""
        return {} if self.left is None else {"left": self.left}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on on the trunk or on the branch."""
        self.left = numbers.get("left")
