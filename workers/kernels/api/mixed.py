"""Mixed precision: what torch's autocast asks of an operation whose tensors it does not see."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from workers.kernels.place import kind


def unmixed(device_type: str) -> AbstractContextManager[object]:
    """Without autocast for the body."""
    if not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def product_dtype(x: Tensor) -> torch.dtype:
    """What products of `x` are to run in: its own dtype outside autocast, and in float64."""
    kind = x.device.type
    if x.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def lowered(x: Tensor) -> Tensor:
    """`x` in the dtype that its products are to run in."""
    dtype = product_dtype(x)
    return x if x.dtype == dtype else x.to(dtype)  # a step of decoding asks for each factor


def widened(x: Tensor) -> Tensor:
    """`x` in float32 where autocast made it narrow and it lies on a CPU, which is faster with what
    is no product in float32."""
    mixed = kind(x) == "cpu" and torch.is_autocast_enabled("cpu")
    return x.float() if mixed and x.dtype == torch.get_autocast_dtype("cpu") else x
