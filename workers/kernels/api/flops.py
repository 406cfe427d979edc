"""What torch's FLOP counter does not know: 2 FLOPs an element of each row that is read, products
that are added in place, and the operations compiled for the CPU.

`FlopCounterMode(custom_mapping=custom_flops())` counts a layer as `search_space.cost` does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from workers.kernels.numba.ops import OPS

aten = torch.ops.aten


def _rows(table_shape: Any, row_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(row_shape) * table_shape[-1]


def _dots(x_shape: Any, table_shape: Any, row_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(row_shape) * table_shape[-1]


def _added_product(y_shape: Any, a_shape: Any, b_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(a_shape) * b_shape[-1]


def custom_flops() -> dict[Any, Callable[..., int]]:
    """Formulas over shapes for those operations of torch that workers.kernels uses."""
    return {
        aten.addmm_: _added_product,
        aten._embedding_bag: _rows,
        aten._embedding_bag_per_sample_weights_backward: _dots,
    }


@register_flop_formula(OPS.grouped_product)
def _(x: Any, x_row: Any, w: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(x_row) * w[1] * w[2]


@register_flop_formula(OPS.grouped_weight_gradient)
def _(d: Any, x: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(d) * x[1]


@register_flop_formula([OPS.row_dots, OPS.add_rows, OPS.row_gradient])
def _(first: Any, wide: Any, row: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(row) * wide[-1]


@register_flop_formula([OPS.row_sum_backward, OPS.row_dot_backward])
def _(first: Any, wide: Any, table: Any, row: Any, *rest: Any, **options: Any) -> int:
    return 4 * prod(row) * table[-1]


@register_flop_formula(OPS.search_backward)
def _(d: Any, index: Any, query: Any, *rest: Any, **options: Any) -> int:
    return 8 * prod(d) * query[-1]
