"""Sparse reads of a table of rows: weighted sums and dot products without a (pairs, width) copy.

N rows of the table, D their width, T tokens, P (token, row) pairs sorted by token.
The pairs are told by `row_P` (the row of each), `token_P` (its token) and `start_T` (where each
token's pairs begin; a token may have none).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.dispatch import triton_ops

aten = torch.ops.aten
SUM = 0  # embedding_bag's mode


def row_sum(
    weight_P: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor
) -> Tensor:
    """y[t] = sum over the pairs p of t of weight[p] * table[row[p]], shape (T, D).

    weight_P and table_ND share a dtype. Differentiable once in both; the table's gradient is
    dense. FLOPs 2 P D.
    """
    ops = triton_ops(weight_P, table_ND)
    if ops is not None:
        return ops.row_sum(weight_P, table_ND, row_P, token_P, start_T)
    return _RowSum.apply(weight_P, table_ND, row_P, token_P, start_T)


def row_dot(
    x_TD: Tensor,
    table_ND: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    known_P: Tensor | None = None,
) -> Tensor:
    """y[p] = x[token[p]] . table[row[p]], shape (P,).

    known_P: these very dot products where the caller has them; nothing is then computed forward,
    and backward is the same. x_TD and table_ND share a dtype. Differentiable once in both; the
    table's gradient is dense. FLOPs 2 P D.
    """
    ops = triton_ops(x_TD, table_ND)
    if ops is not None:
        return ops.row_dot(x_TD, table_ND, row_P, token_P, start_T, known_P)
    return _RowDot.apply(x_TD, table_ND, row_P, token_P, start_T, known_P)


class _RowSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight_P: Tensor,
        table_ND: Tensor,
        row_P: Tensor,
        token_P: Tensor,
        start_T: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight_P, table_ND, row_P, token_P, start_T)
        return _sum(weight_P, table_ND, row_P, start_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        weight_P, table_ND, row_P, token_P, start_T = ctx.saved_tensors
        d_weight_P = d_table_ND = None
        if ctx.needs_input_grad[0]:
            d_weight_P = _dot(dy_TD.contiguous(), table_ND, row_P, token_P, start_T)
        if ctx.needs_input_grad[1]:
            d_table_ND = _scatter(weight_P, dy_TD.contiguous(), table_ND, row_P, token_P)
        return d_weight_P, d_table_ND, None, None, None


class _RowDot(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        table_ND: Tensor,
        row_P: Tensor,
        token_P: Tensor,
        start_T: Tensor,
        known_P: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x_TD, table_ND, row_P, token_P, start_T)
        if known_P is not None:
            return known_P.clone()
        return _dot(x_TD.contiguous(), table_ND, row_P, token_P, start_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_P: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, table_ND, row_P, token_P, start_T = ctx.saved_tensors
        dx_TD = d_table_ND = None
        if ctx.needs_input_grad[0]:
            dx_TD = _sum(dy_P, table_ND, row_P, start_T)
        if ctx.needs_input_grad[1]:
            d_table_ND = _scatter(dy_P, x_TD.contiguous(), table_ND, row_P, token_P)
        return dx_TD, d_table_ND, None, None, None, None


# torch's embedding-bag kernels are these three operations, and each reads the table in place.
# Autograd through F.embedding_bag would do for the sum; the dot has no public name.


def _sum(weight_P: Tensor, table_ND: Tensor, row_P: Tensor, start_T: Tensor) -> Tensor:
    return aten._embedding_bag(
        table_ND, row_P, start_T, False, SUM, False, weight_P.contiguous(), False, -1
    )[0]


def _dot(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor) -> Tensor:
    return aten._embedding_bag_per_sample_weights_backward(
        x_TD, table_ND, row_P, start_T, token_P, SUM, -1
    )


def _scatter(
    weight_P: Tensor, x_TD: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor
) -> Tensor:
    """(N, D): weight[p] * x[token[p]] added to row[p]."""
    unused = row_P.new_zeros(x_TD.shape[0])  # what other modes read: bag sizes and maxima
    return aten._embedding_bag_dense_backward(
        x_TD,
        row_P,
        token_P,
        unused,
        unused,
        table_ND.shape[0],
        False,
        SUM,
        weight_P.contiguous(),
        -1,
    )
