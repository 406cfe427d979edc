"""The matrix products of a call at the machine's rate: the floor under any form of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from workers.kernels.settings import Backend, override

aten = torch.ops.aten
# The place of the first factor among the arguments.
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.addmm_: 1, aten.baddbmm: 1}

LARGE = 512  # sides of a product that fits in cache and runs at the machine's rate


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = PRODUCTS.get(func.overloadpacket)
        if place is not None:
            self.flops += 2.0 * args[place].numel() * args[place + 1].shape[-1]
        return func(*args, **(kwargs or {}))


def products_alone(call: Callable[[], object], turns: int = 11) -> tuple[float, float]:
    """Seconds and FLOPs of the matrix products that `call` does, in its torch form, were each as
    fast as a large one. Attention's fused kernels are not among them."""
    with override(backend=Backend.TORCH), _Recorder() as recorder:
        call()
    a, b = torch.randn(LARGE, LARGE), torch.randn(LARGE, LARGE)
    out, took = torch.matmul(a, b), []
    for _ in range(turns):
        began = time.perf_counter()
        torch.matmul(a, b, out=out)
        took.append(time.perf_counter() - began)
    return recorder.flops * median(took) / (2.0 * LARGE**3), recorder.flops
