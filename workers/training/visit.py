"""What one evaluation does of a run, over all of its workers: seconds and steps."""

from __future__ import annotations

import time

from search_space.contract import EvalRequest
from workers.training.carried import Carried


class Visit(Carried):
    """The evaluation's own part of a run, which its trunk does not depend on.

    began: on the monotonic clock, as if one worker had done it all.
    steps: those beyond `start_flops`, where the rung below left the trunk.
    """

    def __init__(self, request: EvalRequest) -> None:
        self.start_flops = request.start_flops
        self.began, self.steps, self.at = time.monotonic(), 0, 0.0

    def add(self, spent: float) -> None:
        """One step was done, up to the position `spent`."""
        self.at = spent
        self.steps += spent > self.start_flops

    @property
    def seconds(self) -> float:
        """Since the evaluation began."""
        return time.monotonic() - self.began

    def carried(self) -> dict[str, float]:
        """Seconds and steps so far, and the position that they led to."""
        return {"seconds": self.seconds, "steps": self.steps, "at": self.at}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on with an evaluation that was begun, or begin one from the rung below's trunk."""
        self.at = numbers["at"]
        if self.at > self.start_flops:
            self.began = time.monotonic() - numbers["seconds"]
            self.steps = int(numbers["steps"])
