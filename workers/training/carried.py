"""What the parts of a training keep from one step to the next beside their tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Carried(ABC):
    """Keeps numbers that no parameter, buffer or moment holds, and that the next step reads.

    Whatever of training does is a subclass; a layer declares the same (`workers.layers.declared`).
    """

    @abstractmethod
    def carried(self) -> dict[str, float]:
        """The numbers by name."""

    @abstractmethod
    def carry(self, numbers: dict[str, float]) -> None:
        """Go on from the numbers that `carried` gave."""
