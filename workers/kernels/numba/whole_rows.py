"""Reads of a table of which every token reads much, on a CPU: by products with all of it.

A few tokens at a time, weights are spread over all rows, and scores collected from them, while they
are in cache. Products take all rows and are faster by more; nothing is sorted.

T tokens, D the rows' width, P pairs sorted by token, N rows of the table, C tokens at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from search_space.experts import MUCH
from workers.kernels.api.autograd import table_read
from workers.kernels.numba.library import array, jit, tensor_operator
from workers.kernels.recycle import recycled
from workers.kernels.row_order import RowOrder

PAIRS = "Tensor row, Tensor start"  # of the operators' schemas
# Tokens at a time, and more where their numbers still stay in cache: fewer bring the table and its
# gradient from further away too often.
AT_ONCE, CACHED = 128, 1 << 19
TOKENS = 32  # of fewer each would bring the whole table from memory


def reads_much(table: Tensor, order: RowOrder) -> bool:
    """Whether these pairs are to be read so: see `MUCH`."""
    row_P, _, start_T = order.given
    n_tokens, n_rows = len(start_T), table.shape[:-1].numel()
    return n_tokens >= TOKENS and MUCH * len(row_P) >= n_tokens * n_rows


def row_sum(weight_P: Tensor, table: Tensor, order: RowOrder) -> Tensor:
    """(T, D), as workers.kernels.api.rows says."""
    return table_read((_sum, _sum_backward), weight_P, table, order.by_token, False)


def row_dot(x_TD: Tensor, table: Tensor, order: RowOrder, known_P: Tensor | None) -> Tensor:
    """(P,), as workers.kernels.api.rows says."""
    return table_read((_dot, _dot_backward), x_TD, table, order.by_token, False, known_P)


@jit
def _end(start_T: Any, token: int, n_pairs: int) -> int:
    """Where the pairs of a token end."""
    return start_T[token + 1] if token + 1 < len(start_T) else n_pairs


@jit
def _spread(weight_P: Any, row_P: Any, start_T: Any, first: int, y_CN: Any) -> None:
    """The weights of tokens from `first` on at the rows of their pairs, 0 at others."""
    y_CN[:] = 0
    for c in range(len(y_CN)):
        for p in range(start_T[first + c], _end(start_T, first + c, len(row_P))):
            y_CN[c, row_P[p]] += weight_P[p]


@jit
def _collect(score_CN: Any, row_P: Any, start_T: Any, first: int, y_P: Any) -> None:
    """The scores of tokens from `first` on at the rows of their pairs."""
    for c in range(len(score_CN)):
        for p in range(start_T[first + c], _end(start_T, first + c, len(row_P))):
            y_P[p] = score_CN[c, row_P[p]]


@tensor_operator(f"whole_sums(Tensor weight, Tensor table, {PAIRS}, Tensor(a!) y) -> ()")
def whole_sums(
    weight_P: Tensor, table_ND: Tensor, row_P: Tensor, start_T: Tensor, y_TD: Tensor
) -> None:
    """y[token] = the sum of weight * table[row] over its pairs."""
    for part, weight_CN in _parts(table_ND, start_T):
        _spread(array(weight_P), array(row_P), array(start_T), part.start, array(weight_CN))
        torch.mm(weight_CN, table_ND, out=y_TD[part])


@tensor_operator(f"whole_dots(Tensor x, Tensor table, {PAIRS}, Tensor(a!) y) -> ()")
def whole_dots(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, start_T: Tensor, y_P: Tensor) -> None:
    """y = x[token] . table[row] of each pair."""
    for part, score_CN in _parts(table_ND, start_T):
        torch.mm(x_TD[part], table_ND.t(), out=score_CN)
        _collect(array(score_CN), array(row_P), array(start_T), part.start, array(y_P))


@tensor_operator(f"whole_gradient(Tensor weight, Tensor x, {PAIRS}, Tensor(a!) y) -> ()")
def whole_gradient(
    weight_P: Tensor, x_TD: Tensor, row_P: Tensor, start_T: Tensor, y_ND: Tensor
) -> None:
    """y[row] = the sum of weight * x[token] over its pairs."""
    y_ND.zero_()
    for part, weight_CN in _parts(y_ND, start_T):
        _spread(array(weight_P), array(row_P), array(start_T), part.start, array(weight_CN))
        y_ND.addmm_(weight_CN.t(), x_TD[part])


def _parts(table_ND: Tensor, start_T: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Tokens that are taken at a time, and room for a number of each row of theirs, (C, N)."""
    n_tokens, n_rows = len(start_T), len(table_ND)
    at_once = min(n_tokens, max(AT_ONCE, CACHED // max(1, n_rows)))
    room_CN = table_ND.new_empty(at_once, n_rows)
    for first in range(0, n_tokens, at_once):
        part = slice(first, min(first + at_once, n_tokens))
        yield part, room_CN[: part.stop - first]


def _sum(weight_P: Tensor, table_ND: Tensor, row_P: Tensor, start_T: Tensor) -> Tensor:
    y_TD = table_ND.new_empty(len(start_T), table_ND.shape[1])
    whole_sums(weight_P, table_ND, row_P, start_T, y_TD)
    return y_TD


def _dot(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, start_T: Tensor) -> Tensor:
    y_P = x_TD.new_empty(len(row_P))
    whole_dots(x_TD, table_ND, row_P, start_T, y_P)
    return y_P


def _sum_backward(
    dy_TD: Tensor, weight_P: Tensor, table: Tensor, pairs: Any, _: bool, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    d_weight_P = _dot(dy_TD, table.flatten(0, -2), *pairs) if wanted[0] else None
    return d_weight_P, _gradient(weight_P, dy_TD, table, pairs) if wanted[1] else None


def _dot_backward(
    dy_P: Tensor, x_TD: Tensor, table: Tensor, pairs: Any, _: bool, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    dx_TD = _sum(dy_P, table.flatten(0, -2), *pairs) if wanted[0] else None
    return dx_TD, _gradient(dy_P, x_TD, table, pairs) if wanted[1] else None


def _gradient(weight_P: Tensor, x_TD: Tensor, table: Tensor, pairs: Any) -> Tensor:
    y_ND = recycled(table.shape[:-1].numel(), table.shape[-1], dtype=table.dtype)
    whole_gradient(weight_P, x_TD, *pairs, y_ND)
    return y_ND.view(table.shape)
