"""What a GPU's step does once for all weights, and not in each layer.

Weights that products read in mixed precision are rounded by one grouped operation, and their
gradients brought back to float32 by another. The gradients of norms' gains, which each norm's
backward leaves in parts, are added up together.

D width of a norm, G parts of a gain's gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.api.mixed import product_dtype
from workers.kernels.place import kind
from workers.kernels.prepared import made_of
from workers.layers.declared import declared
from workers.model import LanguageModel
from workers.training.shards import is_sharded

PARTS = 256  # of a gain's gradient: programs enough to fill a GPU, few enough that a sum is cheap


@contextmanager
def once(model: LanguageModel) -> Iterator[None]:
    """One forward of the body reads what is made here of the weights as they stand.

    On a CPU nothing is made: its forms round what they multiply themselves, and add as they go.
    Nor of weights that several processes share: a layer's are whole while it is computed alone.
    """
    if kind(model.head) == "cpu" or any(map(is_sharded, model.parameters())):
        yield
        return
    weights, made = _rounded(model)
    gains: list[Tensor] = [
        layer.get_parameter(name) for _, layer in declared(model) for name in layer.gains
    ]
    if gains:
        made += _InParts.apply(*gains)  # type: ignore[no-untyped-call]
    with made_of(weights + gains, made):
        yield


def _rounded(model: LanguageModel) -> tuple[list[Tensor], list[Tensor]]:
    """The weights that products read, each once, and their copies in the products' dtype; none
    where that is their own."""
    named = [layer.get_parameter(n) for _, layer in declared(model) for n in layer.factors]
    weights = {id(w): w for w in (*named, model.head) if product_dtype(w) != w.dtype}
    if not weights:
        return [], []
    found = list(weights.values())
    return found, list(_Rounded.apply(product_dtype(found[0]), *found))  # type: ignore[no-untyped-call]


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_converted(list(weights), dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = iter(_converted([g for g in gradients if g is not None], torch.float32))
        return None, *(None if g is None else next(there) for g in gradients)


def _converted(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies of another dtype, of the same strides: else torch would copy them one by one."""
    copies = [torch.empty_like(t, dtype=dtype) for t in tensors]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return copies


class _InParts(torch.autograd.Function):
    """(D,) each -> (G, D) each, all of its parts the gain itself; their gradient is the sum."""

    @staticmethod
    def forward(ctx: Any, *gains: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(gain.detach().expand(PARTS, -1) for gain in gains)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for place, gradient_GD in enumerate(gradients):
            if gradient_GD is not None:
                by_shape[gradient_GD.shape].append(place)
        sums: list[Tensor | None] = [None] * len(gradients)
        for places in by_shape.values():
            parts = torch.stack([g for at in places if (g := gradients[at]) is not None])
            for at, sum_D in zip(places, parts.sum(1).unbind(0), strict=True):
                sums[at] = sum_D
        return tuple(sums)
