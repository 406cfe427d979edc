"""Sparse reads of a table of rows, by the kernels of torch's embedding bags.

N rows of the table, D their width, T tokens, P (token, row) pairs sorted by token, U rows that a
pair reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.row_order import RowOrder

aten = torch.ops.aten
SUM = 0  # embedding_bag's mode


def row_sum(
    weight_P: Tensor, table: Tensor, start_T: Tensor, order: RowOrder, sparse: bool
) -> Tensor:
    """(T, D), as workers.kernels.api.rows says.

    sparse: whether the table's gradient is.
    """
    y_TD: Tensor = _RowSum.apply(weight_P, table, *order.given, start_T, order, sparse)
    return y_TD


def row_dot(
    x_TD: Tensor,
    table: Tensor,
    start_T: Tensor,
    known_P: Tensor | None,
    order: RowOrder,
    sparse: bool,
) -> Tensor:
    """(P,), as workers.kernels.api.rows says.

    sparse: whether the table's gradient is.
    """
    y_P: Tensor = _RowDot.apply(x_TD, table, *order.given, start_T, known_P, order, sparse)
    return y_P


class _RowSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight_P: Tensor,
        table: Tensor,
        row_P: Tensor,
        token_P: Tensor,
        start_T: Tensor,
        order: RowOrder,
        sparse: bool,
    ) -> Tensor:
        ctx.save_for_backward(weight_P, table, row_P, token_P, start_T)
        ctx.order, ctx.sparse = order, sparse
        return _sum(weight_P, table.flatten(0, -2), row_P, start_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        weight_P, table, row_P, token_P, start_T = ctx.saved_tensors
        dy_TD, d_weight_P, d_table = dy_TD.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            d_weight_P = _dot(dy_TD, table.flatten(0, -2), row_P, token_P, start_T)
        if ctx.needs_input_grad[1]:
            d_table = _table_gradient(weight_P, dy_TD, table, ctx.order, ctx.sparse)
        return d_weight_P, d_table, None, None, None, None, None


class _RowDot(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        table: Tensor,
        row_P: Tensor,
        token_P: Tensor,
        start_T: Tensor,
        known_P: Tensor | None,
        order: RowOrder,
        sparse: bool,
    ) -> Tensor:
        ctx.save_for_backward(x_TD, table, row_P, start_T)
        ctx.order, ctx.sparse = order, sparse
        if known_P is not None:
            return known_P.clone()
        return _dot(x_TD.contiguous(), table.flatten(0, -2), row_P, token_P, start_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_P: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, table, row_P, start_T = ctx.saved_tensors
        dx_TD = d_table = None
        if ctx.needs_input_grad[0]:
            dx_TD = _sum(dy_P, table.flatten(0, -2), row_P, start_T)
        if ctx.needs_input_grad[1]:
            d_table = _table_gradient(dy_P, x_TD.contiguous(), table, ctx.order, ctx.sparse)
        return dx_TD, d_table, None, None, None, None, None, None


# torch's embedding-bag kernels are these two operations, and each reads the table in place.
# Autograd through F.embedding_bag would do for the sum; the dot has no public name.


def _sum(weight_P: Tensor, table_ND: Tensor, row_P: Tensor, start_T: Tensor) -> Tensor:
    y_TD: Tensor = aten._embedding_bag(
        table_ND, row_P, start_T, False, SUM, False, weight_P.contiguous(), False, -1
    )[0]
    return y_TD


def _dot(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor) -> Tensor:
    """(P,): x[token[p]] . table[row[p]]."""
    y_P: Tensor = aten._embedding_bag_per_sample_weights_backward(
        x_TD, table_ND, row_P, start_T, token_P, SUM, -1
    )
    return y_P


def _table_gradient(
    weight_P: Tensor, x_TD: Tensor, table: Tensor, order: RowOrder, sparse: bool
) -> Tensor:
    """weight[p] * x[token[p]] summed into row[p], in the table's shape, dense or sparse."""
    ordered_P = weight_P.index_select(0, order.place_P)
    if not sparse:
        start_N = order.starts(table.shape[:-1].numel())
        return _sum(ordered_P, x_TD, order.token_P, start_N).view(table.shape)
    row_U, start_U = order.touched
    index = torch.stack(torch.unravel_index(row_U, table.shape[:-1]))
    values_UD = _sum(ordered_P, x_TD, order.token_P, start_U)
    return torch.sparse_coo_tensor(
        index, values_UD, table.shape, is_coalesced=True, check_invariants=False
    )
