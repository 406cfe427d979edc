"""What torch's FLOP counter does not know: 2 FLOPs an element of each row that is read, and the
products that are added in place.

`FlopCounterMode(custom_mapping=custom_flops())` counts a layer as `search_space.cost` does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

aten = torch.ops.aten


def _rows(table_shape: Any, row_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(row_shape) * table_shape[-1]


def _dots(x_shape: Any, table_shape: Any, row_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(row_shape) * table_shape[-1]


def _added_product(y_shape: Any, a_shape: Any, b_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(a_shape) * b_shape[-1]


def custom_flops() -> dict[Any, Callable[..., int]]:
    """Formulas over shapes for the operations of workers.kernels."""
    return {
        aten.addmm_: _added_product,
        aten._embedding_bag: _rows,
        aten._embedding_bag_per_sample_weights_backward: _dots,
    }
