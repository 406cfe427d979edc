"""The matrix products of a call, timed alone: the floor under any form of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# The place of the first factor among the arguments.
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.addmm_: 1, aten.baddbmm: 1}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = PRODUCTS.get(func.overloadpacket)
        if place is not None:
            self.shapes[tuple(args[place].shape), tuple(args[place + 1].shape)] += 1
        return func(*args, **(kwargs or {}))


def products_alone(call: Callable[[], object], turns: int = 11) -> tuple[float, float]:
    """Seconds and FLOPs of the matrix products that `call` does, each shape on its own operands
    in cache, without anything between them. Attention's fused kernels are not among them."""
    with _Recorder() as recorder:
        call()
    seconds = flops = 0.0
    for (a_shape, b_shape), count in recorder.shapes.items():
        a, b = torch.randn(a_shape), torch.randn(b_shape)
        out = torch.matmul(a, b)
        took = []
        for _ in range(turns):
            began = time.perf_counter()
            torch.matmul(a, b, out=out)
            took.append(time.perf_counter() - began)
        seconds += count * median(took)
        flops += count * 2.0 * a.numel() * b_shape[-1]
    return seconds, flops
