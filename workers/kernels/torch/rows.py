"""Sparse reads of a table of rows, by the kernels of torch's embedding bags.

N rows of the table, D their width, T tokens, P (token, row) pairs sorted by token, U rows that a
pair reads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.autograd import table_read
from workers.kernels.place import kind
from workers.kernels.row_order import RowOrder, sparse_gradient

aten = torch.ops.aten
SUM = 0  # embedding_bag's mode


def row_sum(weight_P: Tensor, table: Tensor, order: RowOrder, sparse: bool) -> Tensor:
    """(T, D), as workers.kernels.api.rows says.

    sparse: whether the table's gradient is.
    """
    passes = _sum, partial(_sum_backward, order)
    return table_read(passes, weight_P, table, order.given, sparse)


def row_dot(
    x_TD: Tensor, table: Tensor, order: RowOrder, known_P: Tensor | None, sparse: bool
) -> Tensor:
    """(P,), as workers.kernels.api.rows says.

    sparse: whether the table's gradient is.
    """
    passes = _dot, partial(_dot_backward, order)
    return table_read(passes, x_TD, table, order.given, sparse, known_P)


def _sum_backward(
    order: RowOrder,
    dy_TD: Tensor,
    weight_P: Tensor,
    table: Tensor,
    pairs: Any,
    sparse: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    d_weight_P = _dot(dy_TD, table.flatten(0, -2), *pairs) if wanted[0] else None
    d_table = _table_gradient(weight_P, dy_TD, table, order, sparse) if wanted[1] else None
    return d_weight_P, d_table


def _dot_backward(
    order: RowOrder,
    dy_P: Tensor,
    x_TD: Tensor,
    table: Tensor,
    pairs: Any,
    sparse: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    dx_TD = _sum(dy_P, table.flatten(0, -2), *pairs) if wanted[0] else None
    d_table = _table_gradient(dy_P, x_TD, table, order, sparse) if wanted[1] else None
    return dx_TD, d_table


# torch's embedding-bag kernels are these two operations, and each reads the table in place.
# Autograd through F.embedding_bag would do for the sum; the dot has no public name.


def _sum(
    weight_P: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor
) -> Tensor:
    """(T, D): weight[p] * table[row[p]] summed into token[p]."""
    y_TD: Tensor = aten._embedding_bag(
        table_ND, row_P, start_T, False, SUM, False, weight_P, False, -1
    )[0]
    return y_TD


def _dot(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor) -> Tensor:
    """(P,): x[token[p]] . table[row[p]]."""
    if kind(x_TD) == "cuda" and x_TD.dtype == torch.bfloat16:  # torch has no kernel for it there
        x_PD, table_PD = x_TD.index_select(0, token_P), table_ND.index_select(0, row_P)
        wide_P: Tensor = torch.linalg.vecdot(x_PD.float(), table_PD.float())
        return wide_P.to(x_TD.dtype)
    y_P: Tensor = aten._embedding_bag_per_sample_weights_backward(
        x_TD, table_ND, row_P, start_T, token_P, SUM, -1
    )
    return y_P


def _table_gradient(
    weight_P: Tensor, x_TD: Tensor, table: Tensor, order: RowOrder, sparse: bool
) -> Tensor:
    """weight[p] * x[token[p]] summed into row[p], in the table's shape, dense or sparse."""
    # The sum with tokens and rows in each other's place.
    reads = weight_P.index_select(0, order.place_P), x_TD, order.token_P, order.row_P
    if not sparse:
        return _sum(*reads, order.starts(table.shape[:-1].numel())).view(table.shape)
    row_U, start_U = order.touched
    return sparse_gradient(row_U, _sum(*reads, start_U), table.shape)
