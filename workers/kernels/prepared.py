"""What a step has made of its weights beforehand, all of them at once.

A training step on a GPU rounds all weights that its products read in one grouped operation, and
adds up the gradients of all norms' gains in another (`workers.training.once`). Layers and forms ask
here for what was made of a weight; where nothing was, they get the weight, and do it themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

import torch
from torch import Tensor

_made: ContextVar[Mapping[int, Tensor] | None] = ContextVar("made_of_weights", default=None)


def prepared(weight: Tensor) -> Tensor:
    """What was made of a weight: of a matrix its copy in the products' dtype; of a norm's gain (D,)
    itself G times, (G, D), for a gradient in G parts, which are as many programs of a backward
    pass. The weight itself where nothing was made of it."""
    if torch.compiler.is_compiling():  # a compiler cannot follow a context's variable
        return weight
    made = _made.get()
    return weight if made is None else made.get(id(weight), weight)


@contextlib.contextmanager
def made_of(weights: list[Tensor], made: list[Tensor]) -> Iterator[None]:
    """The body finds `made[i]` for `weights[i]`.

    weights: live parameters, which are known by being the very tensors.
    """
    found = {id(w): m for w, m in zip(weights, made, strict=True)}
    token = _made.set(found)
    try:
        yield
    finally:
        _made.reset(token)
