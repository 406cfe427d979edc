"""Sparse reads of a table of rows: weighted sums and dot products without a (pairs, width) copy.

N rows of the table, D their width, T tokens, P (token, row) pairs sorted by token, U rows that a
pair reads.

A table may have leading dims, (..., D): its rows are those of `table.flatten(0, -2)`. Where the
caller allows it, a table that is large beside its reads gets a sparse gradient: a COO tensor of the
table's shape that holds the U rows alone, each once and ascending.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.row_order import RowOrder, wants_sparse
from workers.kernels.torch.rows import row_dot as torch_dot
from workers.kernels.torch.rows import row_sum as torch_sum


def row_sum(weight_P: Tensor, table: Tensor, order: RowOrder, sparse: bool = False) -> Tensor:
    """(T, D): y[t] = sum over the pairs p of t of weight[p] * table[row[p]].

    Differentiable once in weight and table. FLOPs 2 P D.

    weight_P: (P,), of the table's dtype.
    table: (..., D).
    order: the pairs.
    sparse: whether the table's gradient may be (see above); the table is then a leaf.
    """
    sparse = sparse and wants_sparse(table, order.given[0].numel())
    return form("row_sum", torch_sum, weight_P, table)(weight_P, table, order, sparse)


def row_dot(
    x_TD: Tensor,
    table: Tensor,
    order: RowOrder,
    known_P: Tensor | None = None,
    sparse: bool = False,
) -> Tensor:
    """(P,): y[p] = x[token[p]] . table[row[p]].

    Differentiable once in x and table. FLOPs 2 P D.

    x_TD: (T, D), of the table's dtype.
    table: (..., D).
    order: the pairs.
    known_P: these very dot products where the caller has them; nothing is then computed forward,
        and backward is the same.
    sparse: whether the table's gradient may be (see above); the table is then a leaf.
    """
    sparse = sparse and wants_sparse(table, order.given[0].numel())
    return form("row_dot", torch_dot, x_TD, table)(x_TD, table, order, known_P, sparse)
