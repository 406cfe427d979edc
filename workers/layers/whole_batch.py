"""Means over all tokens of a batch, of which a process may read a part.

What is a sum over tokens needs none of this: gradients are averaged over the processes. What is no
such sum does: a loss that is a product of two means, or a norm by the batch's statistics. Layers
know nothing of processes, so whoever has several of them says here how a mean is had over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

MeanOver = Callable[[Tensor], Tensor]
_mean_over: list[MeanOver] = []  # the innermost last


def of_batch(mean: Tensor) -> Tensor:
    """The mean over all tokens of the batch, from that over the tokens that are read here."""
    return _mean_over[-1](mean) if _mean_over else mean


def in_one_place() -> bool:
    """Whether all tokens of the batch are read here, so that `of_batch` changes nothing."""
    return not _mean_over


@contextmanager
def spread_over(mean_over: MeanOver) -> Iterator[None]:
    """Within it, each of several processes reads as many tokens of every batch.

    mean_over: the mean of a tensor over the processes, through which gradients flow.
    """
    _mean_over.append(mean_over)
    try:
        yield
    finally:
        _mean_over.pop()
