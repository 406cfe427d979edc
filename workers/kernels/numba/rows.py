"""Sparse reads of a table of rows on a CPU, each row once: its pairs are taken together.

The pairs come sorted by row, forward and backward: `row_P` ascending, each pair's token, and
`place_P`, where it lies in the callers' order. A row is read once for all its pairs, and once more
backward for both gradients together; the tokens' side stays in cache. A gradient has a row for each
of the table's, or, when sparse, for each that has pairs.

T tokens, D the rows' width, P pairs, N rows of the table, M of a gradient, U that a pair reads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.autograd import table_read
from workers.kernels.numba import whole_rows
from workers.kernels.numba.library import jit_any_order, operator
from workers.kernels.recycle import recycled
from workers.kernels.row_order import RowOrder, sparse_gradient

RUNS = "Tensor row, Tensor token, Tensor place"  # of the operators' schemas


@jit_any_order
def _end(row_P: Any, first: int) -> int:
    """Where the pairs of the row of pair `first` end."""
    end = first + 1
    while end < len(row_P) and row_P[end] == row_P[first]:
        end += 1
    return end


@operator(f"row_dots(Tensor x, Tensor table, {RUNS}, Tensor(a!) y) -> ()")
@jit_any_order
def row_dots(x_TD: Any, table_ND: Any, row_P: Any, token_P: Any, place_P: Any, y_P: Any) -> None:
    """y[place] = x[token] . table[row]."""
    for p in range(len(row_P)):
        x_D, row_D, total = x_TD[token_P[p]], table_ND[row_P[p]], y_P.dtype.type(0)
        for d in range(len(row_D)):
            total += x_D[d] * row_D[d]
        y_P[place_P[p]] = total


@operator(f"add_rows(Tensor weight, Tensor table, {RUNS}, Tensor(a!) y) -> ()")
@jit_any_order
def add_rows(
    weight_P: Any, table_ND: Any, row_P: Any, token_P: Any, place_P: Any, y_TD: Any
) -> None:
    """y[token] += weight[place] * table[row]."""
    for p in range(len(row_P)):
        y_D, row_D, weight = y_TD[token_P[p]], table_ND[row_P[p]], weight_P[place_P[p]]
        for d in range(len(row_D)):
            y_D[d] += weight * row_D[d]


@jit_any_order
def _next_row(y_MD: Any, before: int, row: int, sparse: bool) -> int:
    """Where the gradient of a row goes, after that at `before`: rows up to there become zero."""
    at = before + 1 if sparse else row
    y_MD[before + 1 : at + 1] = 0
    return at


@operator(f"row_gradient(Tensor weight, Tensor x, {RUNS}, bool sparse, Tensor(a!) y) -> ()")
@jit_any_order
def row_gradient(
    weight_P: Any, x_TD: Any, row_P: Any, token_P: Any, place_P: Any, sparse: bool, y_MD: Any
) -> None:
    """y[row] = the sum of weight[place] * x[token] over its pairs."""
    at, first = -1, 0
    while first < len(row_P):
        end, at = _end(row_P, first), _next_row(y_MD, at, row_P[first], sparse)
        y_D = y_MD[at]
        for p in range(first, end):
            x_D, weight = x_TD[token_P[p]], weight_P[place_P[p]]
            for d in range(len(y_D)):
                y_D[d] += weight * x_D[d]
        first = end
    y_MD[at + 1 :] = 0


@operator(
    f"row_sum_backward(Tensor weight, Tensor dy, Tensor table, {RUNS}, bool sparse, "
    "Tensor(a!) d_weight, Tensor(b!) d_table) -> ()"
)
@jit_any_order
def row_sum_backward(
    weight_P: Any,
    dy_TD: Any,
    table_ND: Any,
    row_P: Any,
    token_P: Any,
    place_P: Any,
    sparse: bool,
    d_weight_P: Any,
    y_MD: Any,
) -> None:
    """Both gradients in one pass: `row_gradient` of weight and dy, `row_dots` of dy and table."""
    at, first = -1, 0
    while first < len(row_P):
        end, at = _end(row_P, first), _next_row(y_MD, at, row_P[first], sparse)
        row_D, y_D = table_ND[row_P[first]], y_MD[at]
        for p in range(first, end):
            dy_D, place = dy_TD[token_P[p]], place_P[p]
            weight, total = weight_P[place], d_weight_P.dtype.type(0)
            for d in range(len(row_D)):
                total += dy_D[d] * row_D[d]
                y_D[d] += weight * dy_D[d]
            d_weight_P[place] = total
        first = end
    y_MD[at + 1 :] = 0


@operator(
    f"row_dot_backward(Tensor dy, Tensor x, Tensor table, {RUNS}, bool sparse, "
    "Tensor(a!) dx, Tensor(b!) d_table) -> ()"
)
@jit_any_order
def row_dot_backward(
    dy_P: Any,
    x_TD: Any,
    table_ND: Any,
    row_P: Any,
    token_P: Any,
    place_P: Any,
    sparse: bool,
    dx_TD: Any,
    y_MD: Any,
) -> None:
    """Both gradients in one pass: `row_gradient` of dy and x, `add_rows` of dy and table."""
    at, first = -1, 0
    while first < len(row_P):
        end, at = _end(row_P, first), _next_row(y_MD, at, row_P[first], sparse)
        row_D, y_D = table_ND[row_P[first]], y_MD[at]
        for p in range(first, end):
            x_D, dx_D, dy = x_TD[token_P[p]], dx_TD[token_P[p]], dy_P[place_P[p]]
            for d in range(len(row_D)):
                y_D[d] += dy * x_D[d]
                dx_D[d] += dy * row_D[d]
        first = end
    y_MD[at + 1 :] = 0


def row_sum(weight_P: Tensor, table: Tensor, order: RowOrder, sparse: bool) -> Tensor:
    """(T, D), as workers.kernels.api.rows says.

    sparse: whether the table's gradient is.
    """
    if whole_rows.reads_much(table, order) and not sparse:
        return whole_rows.row_sum(weight_P, table, order)
    passes = partial(_sum, order.given[2].numel()), _sum_backward
    return table_read(passes, weight_P, table, order.narrow, sparse)


def row_dot(
    x_TD: Tensor, table: Tensor, order: RowOrder, known_P: Tensor | None, sparse: bool
) -> Tensor:
    """(P,), as workers.kernels.api.rows says.

    sparse: whether the table's gradient is.
    """
    if whole_rows.reads_much(table, order) and not sparse:
        return whole_rows.row_dot(x_TD, table, order, known_P)
    return table_read((_dot, _dot_backward), x_TD, table, order.narrow, sparse, known_P)


def _sum(n_tokens: int, weight_P: Tensor, table_ND: Tensor, *pairs: Tensor) -> Tensor:
    y_TD = table_ND.new_zeros(n_tokens, table_ND.shape[1])
    add_rows(weight_P, table_ND, *pairs, y_TD)
    return y_TD


def _dot(x_TD: Tensor, table_ND: Tensor, *pairs: Tensor) -> Tensor:
    y_P = x_TD.new_empty(len(pairs[0]))
    row_dots(x_TD, table_ND, *pairs, y_P)
    return y_P


def _sum_backward(
    dy_TD: Tensor,
    weight_P: Tensor,
    table: Tensor,
    pairs: Any,
    sparse: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    table_ND, d_weight_P = table.flatten(0, -2), torch.empty_like(weight_P)
    if not wanted[1]:
        row_dots(dy_TD, table_ND, *pairs, d_weight_P)
        return d_weight_P, None
    gradient = _TableGradient(table, pairs[0], sparse)
    if wanted[0]:
        row_sum_backward(weight_P, dy_TD, table_ND, *pairs, sparse, d_weight_P, gradient.rows_MD)
        return d_weight_P, gradient.tensor()
    row_gradient(weight_P, dy_TD, *pairs, sparse, gradient.rows_MD)
    return None, gradient.tensor()


def _dot_backward(
    dy_P: Tensor,
    x_TD: Tensor,
    table: Tensor,
    pairs: Any,
    sparse: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    table_ND, dx_TD = table.flatten(0, -2), torch.zeros_like(x_TD) if wanted[0] else None
    if not wanted[1]:
        add_rows(dy_P, table_ND, *pairs, dx_TD)
        return dx_TD, None
    gradient = _TableGradient(table, pairs[0], sparse)
    if dx_TD is not None:
        row_dot_backward(dy_P, x_TD, table_ND, *pairs, sparse, dx_TD, gradient.rows_MD)
    else:
        row_gradient(dy_P, x_TD, *pairs, sparse, gradient.rows_MD)
    return dx_TD, gradient.tensor()


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
        return sparse_gradient(self.row_U, self.rows_MD, self.shape)
