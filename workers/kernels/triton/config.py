"""A kernel's configuration, and its launch on the device of its tensors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Config:
    """Block sizes, warps of a program and stages of the software pipeline.

    nvidia: whether it is for NVIDIA's GPUs alone: AMD's have less memory beside a program, and
        other registers.
    """

    blocks: tuple[tuple[str, int], ...]
    warps: int
    stages: int
    nvidia: bool = False

    @classmethod
    def of(cls, warps: int = 4, stages: int = 2, nvidia: bool = False, **blocks: int) -> Config:
        """`Config.of(BLOCK_P=64, warps=8)`."""
        return cls(tuple(sorted(blocks.items())), warps, stages, nvidia)

    def __getitem__(self, block: str) -> int:
        return dict(self.blocks)[block]

    @property
    def label(self) -> str:
        """A short name: P64-O64-I32-w4-s3."""
        sizes = [f"{name.removeprefix('BLOCK_')}{size}" for name, size in self.blocks]
        return "-".join([*sizes, f"w{self.warps}", f"s{self.stages}"])

    def options(self) -> dict[str, int]:
        """Keyword arguments of a launch."""
        return {**dict(self.blocks), "num_warps": self.warps, "num_stages": self.stages}


Seen = Callable[[Any, int, Config, tuple[Any, ...]], None]
_seen: ContextVar[Seen | None] = ContextVar("launches_told", default=None)


@contextlib.contextmanager
def instead_of_launches(tell: Seen) -> Iterator[None]:
    """Nothing is launched in the body: `tell` gets the kernel, the number of its programs, its
    configuration and its arguments. For traces, whose tensors hold no numbers."""
    token = _seen.set(tell)
    try:
        yield
    finally:
        _seen.reset(token)


def launch(
    kernel: Any, programs: int | tuple[int, ...], config: Config, x: Tensor, /, *args: Any, **k: Any
) -> None:
    """Run `kernel` over a grid of programs on the device that holds its first argument."""
    grid = (programs,) if isinstance(programs, int) else programs
    tell = _seen.get()
    if tell is not None:
        tell(kernel, math.prod(grid), config, (x, *args))
        return
    # Triton launches on the current device, which need not be the tensors'.
    on_device = torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
    with on_device:
        kernel[grid](x, *args, **k, **config.options())


def matmul_precision(dtype: torch.dtype) -> str:
    """How a float32 product is done: as the caller told torch, so both forms agree."""
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact else "tf32"
