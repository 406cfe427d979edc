"""workers.kernels.torch.rows on a CPU: the pairs are taken in row order, forward and backward.

A row is read once for all its pairs, and once more backward for both gradients together; the
tokens' side stays in cache. N rows, D their width, T tokens, P pairs, U rows that a pair reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba import ops
from workers.kernels.recycle import recycled

if TYPE_CHECKING:
    from workers.kernels.torch.rows import RowOrder


def row_sum(
    weight_P: Tensor, table: Tensor, n_tokens: int, order: RowOrder, sparse: bool
) -> Tensor:
    """(T, D): each token's weighted rows, summed. sparse: whether the table's gradient is."""
    return _RowSum.apply(weight_P, table, n_tokens, order, sparse)


def row_dot(
    x_TD: Tensor, table: Tensor, known_P: Tensor | None, order: RowOrder, sparse: bool
) -> Tensor:
    """(P,): each pair's x . row; a copy of `known_P` where the caller has them."""
    return _RowDot.apply(x_TD, table, known_P, order, sparse)


class _RowSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight_P: Tensor, table: Tensor, n_tokens: int, order: RowOrder, sparse: bool
    ) -> Tensor:
        weight_P, table = weight_P.contiguous(), table.contiguous()
        ctx.save_for_backward(weight_P, table, *order.narrow)
        ctx.sparse = sparse
        y_TD = table.new_zeros(n_tokens, table.shape[-1])
        ops.add_rows(weight_P, table.flatten(0, -2), *order.narrow, y_TD)
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        weight_P, table, *pairs = ctx.saved_tensors
        table_ND, dy_TD = table.flatten(0, -2), dy_TD.contiguous()
        d_weight_P = torch.empty_like(weight_P)
        if not ctx.needs_input_grad[1]:
            ops.row_dots(dy_TD, table_ND, *pairs, d_weight_P)
            return d_weight_P, *[None] * 4
        gradient = _TableGradient(table, pairs[0], ctx.sparse)
        if ctx.needs_input_grad[0]:
            ops.row_sum_backward(
                weight_P, dy_TD, table_ND, *pairs, ctx.sparse, d_weight_P, gradient.rows_MD
            )
            return d_weight_P, gradient.tensor(), *[None] * 3
        ops.row_gradient(weight_P, dy_TD, *pairs, ctx.sparse, gradient.rows_MD)
        return None, gradient.tensor(), *[None] * 3


class _RowDot(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        table: Tensor,
        known_P: Tensor | None,
        order: RowOrder,
        sparse: bool,
    ) -> Tensor:
        x_TD, table = x_TD.contiguous(), table.contiguous()
        ctx.save_for_backward(x_TD, table, *order.narrow)
        ctx.sparse = sparse
        if known_P is not None:
            return known_P.clone()
        y_P = x_TD.new_empty(len(order.token_P))
        ops.row_dots(x_TD, table.flatten(0, -2), *order.narrow, y_P)
        return y_P

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_P: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, table, *pairs = ctx.saved_tensors
        table_ND, dy_P = table.flatten(0, -2), dy_P.contiguous()
        dx_TD = torch.zeros_like(x_TD) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            ops.add_rows(dy_P, table_ND, *pairs, dx_TD)
            return dx_TD, *[None] * 4
        gradient = _TableGradient(table, pairs[0], ctx.sparse)
        if dx_TD is not None:
            ops.row_dot_backward(dy_P, x_TD, table_ND, *pairs, ctx.sparse, dx_TD, gradient.rows_MD)
        else:
            ops.row_gradient(dy_P, x_TD, *pairs, ctx.sparse, gradient.rows_MD)
        return dx_TD, gradient.tensor(), *[None] * 3


class _TableGradient:
    """Room for the gradient of a table's rows: all N of them, or those that are read."""

    def __init__(self, table: Tensor, row_P: Tensor, sparse: bool) -> None:
        self.shape, self.sparse = table.shape, sparse
        self.row_U = torch.unique_consecutive(row_P).long() if sparse else None
        n_rows = table.shape[:-1].numel() if self.row_U is None else len(self.row_U)
        self.rows_MD = recycled(n_rows, table.shape[-1], dtype=table.dtype)

    def tensor(self) -> Tensor:
        """The gradient, in the table's shape."""
        if self.row_U is None:
            return self.rows_MD.view(self.shape)
        index = torch.stack(torch.unravel_index(self.row_U, self.shape[:-1]))
        return torch.sparse_coo_tensor(
            index, self.rows_MD, self.shape, is_coalesced=True, check_invariants=False
        )
