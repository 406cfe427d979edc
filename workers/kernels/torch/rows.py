"""Sparse reads of a table of rows: weighted sums and dot products without a (pairs, width) copy.

N rows of the table, D their width, T tokens, P (token, row) pairs sorted by token, U rows that a
pair reads. The pairs are told by `row_P` (the row of each), `token_P` (its token) and `start_T`
(where each token's pairs begin; a token may have none).

A table may have leading dims, (..., D): its rows are those of `table.flatten(0, -2)`. Where the
caller allows it, a table that is large beside its reads gets a sparse gradient: a COO tensor of the
table's shape that holds the U rows alone, each once and ascending.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.dispatch import compiled_ops, triton_ops

aten = torch.ops.aten
SUM = 0  # embedding_bag's mode
# A touched row costs a sparse step (its gradient, sorted, and the row-wise optimizer) about four
# times what any row costs a dense one. Small tables do not repay the handling.
SPARSE_ROWS_A_PAIR = 4
SPARSE_ELEMENTS = 1 << 20


class RowOrder:
    """The pairs sorted by row, found when first asked for. One serves all tables of a layer that
    are read by the same pairs."""

    def __init__(self, row_P: Tensor, token_P: Tensor) -> None:
        self._row_P, self._token_P = row_P, token_P

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        # Narrow keys sort twice as fast.
        narrow_P, place_P = torch.sort(self._row_P.int(), stable=True)
        return narrow_P.to(self._row_P.dtype), place_P

    @property
    def row_P(self) -> Tensor:
        """Ascending rows."""
        return self._sorted[0]

    @property
    def place_P(self) -> Tensor:
        """Where each pair lies in the order by token."""
        return self._sorted[1]

    @cached_property
    def token_P(self) -> Tensor:
        """The token of each pair."""
        return self._token_P.index_select(0, self.place_P)

    @cached_property
    def touched(self) -> tuple[Tensor, Tensor]:
        """The rows that have pairs, ascending, and where each one's begin, both (U,)."""
        row_U, size_U = torch.unique_consecutive(self.row_P, return_counts=True)
        return row_U, size_U.cumsum(0) - size_U

    @cached_property
    def narrow(self) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs' rows, tokens and places in 32 bits: half of what is kept for backward."""
        return self.row_P.int(), self.token_P.int(), self.place_P.int()

    def starts(self, n_rows: int) -> Tensor:
        """Where each row's pairs begin, (N,)."""
        size_N = torch.bincount(self._row_P, minlength=n_rows)
        return size_N.cumsum(0) - size_N


def row_sum(
    weight_P: Tensor,
    table: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    order: RowOrder | None = None,
    sparse: bool = False,
) -> Tensor:
    """y[t] = sum over the pairs p of t of weight[p] * table[row[p]], shape (T, D).

    weight_P and table (..., D) share a dtype. order: of these pairs, where the caller has it.
    sparse: whether the table's gradient may be (see above); the table is then a leaf.
    Differentiable once in both. FLOPs 2 P D.
    """
    ops = triton_ops(weight_P, table)
    if ops is not None:
        return ops.row_sum(weight_P, table.flatten(0, -2), row_P, token_P, start_T)
    order = order or RowOrder(row_P, token_P)
    sparse = sparse and wants_sparse(table, row_P.numel())
    ops = compiled_ops(weight_P, table)
    if ops is not None:
        return ops.row_sum(weight_P, table, start_T.numel(), order, sparse)
    return _RowSum.apply(weight_P, table, row_P, token_P, start_T, order, sparse)


def row_dot(
    x_TD: Tensor,
    table: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    known_P: Tensor | None = None,
    order: RowOrder | None = None,
    sparse: bool = False,
) -> Tensor:
    """y[p] = x[token[p]] . table[row[p]], shape (P,).

    known_P: these very dot products where the caller has them; nothing is then computed forward,
    and backward is the same. order: of these pairs, where the caller has it. sparse: whether the
    table's gradient may be (see above); the table is then a leaf. x_TD and table (..., D) share a
    dtype. Differentiable once in both. FLOPs 2 P D.
    """
    ops = triton_ops(x_TD, table)
    if ops is not None:
        return ops.row_dot(x_TD, table.flatten(0, -2), row_P, token_P, start_T, known_P)
    order = order or RowOrder(row_P, token_P)
    sparse = sparse and wants_sparse(table, row_P.numel())
    ops = compiled_ops(x_TD, table)
    if ops is not None:
        return ops.row_dot(x_TD, table, known_P, order, sparse)
    return _RowDot.apply(x_TD, table, row_P, token_P, start_T, known_P, order, sparse)


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
    return aten._embedding_bag(
        table_ND, row_P, start_T, False, SUM, False, weight_P.contiguous(), False, -1
    )[0]


def _dot(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor) -> Tensor:
    """(P,): x[token[p]] . table[row[p]]."""
    return aten._embedding_bag_per_sample_weights_backward(
        x_TD, table_ND, row_P, start_T, token_P, SUM, -1
    )


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


def wants_sparse(table: Tensor, n_pairs: int) -> bool:
    """Whether a table (..., D) that n_pairs pairs read gets a sparse gradient."""
    large = table.numel() >= SPARSE_ELEMENTS
    return large and table.shape[:-1].numel() >= SPARSE_ROWS_A_PAIR * n_pairs
