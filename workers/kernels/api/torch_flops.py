"""How torch's FLOP counter counts those of torch's own operations that it does not know.

A multiply-add is 2 FLOPs. This file stands alone: the check of an export runs it in a process
without this project (nas.models.verify).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

Shape = Sequence[int]
Rule = Callable[..., int]


def dots(x: Shape, table: Shape, row: Shape, *_: Any, **__: Any) -> int:
    """Of a dot product with each row that is read."""
    return 2 * prod(row) * table[-1]


def torch_flops() -> dict[Any, Rule]:
    """A rule for each operation that the torch forms of workers.kernels use: a function of the
    arguments' shapes."""
    aten = torch.ops.aten
    return {
        aten.addmm_: lambda y, a, b, *_, **__: 2 * prod(a) * b[-1],
        aten._grouped_mm: lambda x, w, *_, **__: 2 * prod(x) * w[-1],
        aten._embedding_bag_per_sample_weights_backward: dots,
        aten._embedding_bag: lambda table, row, *_, **__: 2 * prod(row) * table[-1],
    }
