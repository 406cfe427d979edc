"""`Declared`: the base class of layers, by which each says what it is and what it needs.

Whoever builds, trains, measures or loads a model asks its layers through this class alone. A layer
overrides what concerns it; the rest says "nothing".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from workers.layers.stats import RoutingStats


class Declared(nn.Module):
    """A layer that says what it is.

    matrices: names of its parameters that are matrices in their last two dims, with dims before
        them a batch (experts, or q, k and v).
    tables: names of its parameters that are read row by row (the last dim is a row).
    factors: names of its parameters that products of mixed precision read, as
        `workers.kernels.prepared` gives them.
    gains: names of its parameters that are a norm's gains.
    sparse_gradients: whether the gradients of its tables may be sparse. Our trainer asks for them;
        most other optimizers refuse them.
    stats: where it records its routing while somebody listens, else None.
    traceable: of a selection, whether a compiler can follow it: no shape depends on what the
        numbers are.
    appends: of a selection, whether its forward takes `always`: so many experts after its own
        that every token reads.
    reads_tokens: of a selection, whether it looks at what it is given of tokens, not their ids
        alone.
    training_activity: of a layer whose work in training depends on the data, the share of
        (token, expert) pairs that the last step read, a number or a tensor of one; None for all
        others.
    states: names of its buffers that move by small steps. They are float32 or wider, whatever the
        model's dtype: 0.001 is no step where numbers have 8 bits.
    counted: what the backwards since the last optimizer step have counted.
    """

    matrices: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    gains: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    sparse_gradients: bool = False
    traceable: bool = False
    appends: bool = False
    reads_tokens: bool = True
    stats: RoutingStats | None = None
    training_activity: Tensor | float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counted: list[Any] = []

    def reset_parameters(self) -> None:
        """Give the layer's own parameters, not those of layers in it, their initial values."""

    def resize_vocabulary(self, n_tokens: int) -> None:
        """Hear that token ids are now below n_tokens, more or fewer than before."""

    def set_token_counts(self, counts_V: Tensor) -> None:
        """Hear how often each word occurs in the training split.

        counts_V: (V,) whole numbers, by token id.
        """

    def begin_run(self, warmup: int) -> None:
        """Hear about the run that begins, of which its length is not known: it may be promoted.

        warmup: steps in which the recipe's rates rise.
        """

    def new_stats(self) -> RoutingStats | None:
        """Empty statistics for `stats`; None for a layer that records none."""
        return None

    def carried(self) -> dict[str, float]:
        """Numbers by name that the next step reads and no parameter or buffer holds."""
        return {}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on from what `carried` gave.

        numbers: by name.
        """

    def linear_router(self, scored_BGD: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows whose products with a token score the experts, (B, D), and what is added to a
        score for the choice alone, (B,), or None.

        Of a selection that its method calls native and that leaves experts out.

        scored_BGD: what its experts' units are scored with, (B, G, D).
        """
        raise NotImplementedError(f"{type(self).__name__} has no linear router")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What `.to`, `.half` and the like go through. States keep their bits: one that was narrow
        # for a moment has lost them.
        before = {name: self.get_buffer(name) for name in self.states}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self.get_buffer(name)
            if torch.promote_types(new.dtype, torch.float32) != new.dtype:
                setattr(self, name, old.to(new.device))
        return self

    def count_at_backward(self, tensor: Tensor, count: Any) -> None:
        """Append to `counted` when the gradient comes back to this forward, once.

        So a forward counts if the step learns from it, and as often: each part of a batch whose
        gradients are accumulated does; a forward without backward (an evaluation in training mode)
        does not, nor does a second forward that only computes activations again.

        tensor: one that the forward's output depends on; nothing is counted if it has no gradient.
        count: what `settle` wants of the forward.
        """
        if not tensor.requires_grad:
            return
        waiting = [count]

        def counted(gradient: Tensor) -> None:
            if waiting:
                self.counted.append(waiting.pop())

        tensor.register_hook(counted)

    @classmethod
    def settle(cls, layers: Sequence[Self]) -> None:
        """Move what moves once an optimizer step, by what the step's backwards counted.

        layers: all of this class in the model; some have counted something.
        """


def declared(model: nn.Module) -> Iterator[tuple[str, Declared]]:
    """The model's layers that declare what they are, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, Declared):
            yield name, module
