"""A batch in parts, whose gradients add up to the whole batch's: what does not fit at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from search_space.contract import Precision
from workers.model import LanguageModel
from workers.training.loop import batch_loss


@dataclass(frozen=True)
class InParts:
    """A `BatchStep` that takes so many sequences at a time, the last part with what is left.

    The cross-entropy and its gradients are the whole batch's, but for rounding. What a layer
    computes of all tokens at once is of a part: auxiliary losses of the load, whose mean over parts
    is not that of the batch, and query norms by batch statistics.

    sequences: of a part.
    """

    sequences: int

    def __call__(
        self,
        model: LanguageModel,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        device: str,
        precision: Precision,
    ) -> Tensor:
        """As `train_step`; in float64."""
        total: Tensor | float = 0.0
        for start in range(0, len(inputs), self.sequences):
            part = slice(start, start + self.sequences)
            weight = len(inputs[part]) / len(inputs)
            loss, minimised = batch_loss(model, inputs[part], targets[part], device, precision)
            (minimised * weight).backward()
            total = total + weight * loss.detach().double()
        assert isinstance(total, Tensor)  # a batch has a sequence
        return total
