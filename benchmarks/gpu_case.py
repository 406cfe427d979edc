"""An operation at one size, as every form that computes it: what cases of `benchmarks.gpu` share.

T tokens, P (token, expert) pairs, B experts, D width, G hidden units of an expert, N table rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.kernels.settings import Backend, override

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    forms: every way to compute it, "triton" ours.
    exact: float64.
    moved: bytes that it must move.
    flops: FLOPs that it must do.
    """

    name: str
    forms: dict[str, Call]
    exact: Call
    moved: float
    flops: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """Of all cases."""

    tokens: int = 16_384
    experts: int = 64
    width: int = 1024
    hidden: int = 512
    k: int = 8
    rows: int = 1 << 18
    reads: int = 32
    heads: int = 8
    root: int = 1024
    vocabulary: int = 50_304


TOY = Sizes(
    tokens=8,
    experts=4,
    width=32,
    hidden=16,
    k=2,
    rows=50,
    reads=3,
    heads=1,
    root=9,
    vocabulary=70,
)


class Maker:
    """Random tensors of one dtype on one device."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        x = torch.randn(*shape, device=self.device, generator=self.generator)
        return (scale * x).to(self.dtype)

    def below(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, device=self.device, generator=self.generator)


def forced(backend: Backend, call: Call) -> Call:
    """`call` with one backend of the dispatched operations."""

    def run() -> Tensor:
        with override(backend=backend):
            return call()

    return run


def both(call: Call) -> dict[str, Call]:
    """The Triton and the torch form of a dispatched operation."""
    return {"triton": forced(Backend.TRITON, call), "torch": forced(Backend.TORCH, call)}
