"""What layers and optimizers keep from one step to the next beside their tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Carried(ABC):
    """Keeps numbers that no parameter, buffer or moment holds, and that the next step reads.

    Whoever does is a subclass: training saves and restores what it finds by this class alone.
    """

    @abstractmethod
    def carried(self) -> dict[str, float]:
        """The numbers by name."""

    @abstractmethod
    def carry(self, numbers: dict[str, float]) -> None:
        """Go on from the numbers that `carried` gave."""


class AdaptiveActivity(Carried):
    """A selection whose work in training depends on the data.

    training_activity: share of (token, expert) pairs that the last training forward read.
    """

    training_activity: float

    def carried(self) -> dict[str, float]:
        """The activity, which prices the next step."""
        return {"training_activity": self.training_activity}

    def carry(self, numbers: dict[str, float]) -> None:
        """Price the next step as if this layer had just run."""
        self.training_activity = numbers["training_activity"]
