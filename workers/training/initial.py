"""A proxy's initial weights, drawn by name: what two designs have in common starts the same.

The difference between two designs is then a difference of designs and not, in its greater part, of
two draws of the same embedding and attention (common random numbers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from workers.layers.declared import declared
from workers.model import LanguageModel


def draw_by_name(model: nn.Module, seed: int) -> None:
    """Give every tensor its initial values, from a generator seeded by (seed, its name).

    model: on the CPU, whatever device it will train on: the values depend on none.
    seed: the run's.
    torch's global generator is left as it was. torch fills a tensor from the start, so of two
    tensors of one name and scale the smaller one has the first numbers of the larger (one of fewer
    than 16 numbers aside): experts that two designs have in common start the same, too.
    """
    with torch.random.fork_rng(devices=[]), _SeededByName(model, seed):
        if isinstance(model, LanguageModel):
            model.reset_parameters()
        for _, layer in declared(model):
            layer.reset_parameters()


class _SeededByName(TorchFunctionMode):
    """While it is on, what touches a parameter finds the generator seeded for that parameter.

    Layers draw with torch's functions, those of plug-ins too, and need not know of names.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._seed = seed
        self._last: str | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for each in (*args, *kwargs.values()):
            name = self._names.get(id(each)) if isinstance(each, Tensor) else None
            # A parameter that is drawn in several calls goes on where the last one ended.
            if name is not None and name != self._last:
                torch.default_generator.manual_seed(named_seed(self._seed, name))
                self._last = name
        return func(*args, **kwargs)


def named_seed(seed: int, name: str) -> int:
    """A seed for the tensor of that name, in [0, 2^63)."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
