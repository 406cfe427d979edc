"""Sparse reads of a table of rows on a CPU, each row once: its pairs are taken together.

The pairs come sorted by row: `row_P` ascending, each pair's token, and `place_P`, where it lies in
the callers' order. A gradient has a row for each of the table's, or, when sparse, for each that
has pairs.

T tokens, D the rows' width, P pairs, N rows of the table, M of a gradient.
"""

from __future__ import annotations

from typing import Any

import numba

# Sums may be taken in any order, so that several numbers are added at a time.
compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})


@compiled
def _end(row_P: Any, first: int) -> int:
    """Where the pairs of the row of pair `first` end."""
    end = first + 1
    while end < len(row_P) and row_P[end] == row_P[first]:
        end += 1
    return end


@compiled
def dot(x_TD: Any, table_ND: Any, row_P: Any, token_P: Any, place_P: Any, y_P: Any) -> None:
    """y[place] = x[token] . table[row]."""
    for p in range(len(row_P)):
        x_D, row_D, total = x_TD[token_P[p]], table_ND[row_P[p]], y_P.dtype.type(0)
        for d in range(len(row_D)):
            total += x_D[d] * row_D[d]
        y_P[place_P[p]] = total


@compiled
def add_rows(
    weight_P: Any, table_ND: Any, row_P: Any, token_P: Any, place_P: Any, y_TD: Any
) -> None:
    """y[token] += weight[place] * table[row]."""
    for p in range(len(row_P)):
        y_D, row_D, weight = y_TD[token_P[p]], table_ND[row_P[p]], weight_P[place_P[p]]
        for d in range(len(row_D)):
            y_D[d] += weight * row_D[d]


@compiled
def _next_row(y_MD: Any, before: int, row: int, sparse: bool) -> int:
    """Where the gradient of a row goes, after that at `before`: rows up to there become zero."""
    at = before + 1 if sparse else row
    y_MD[before + 1 : at + 1] = 0
    return at


@compiled
def gradient(
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


@compiled
def sum_backward(
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
    """`gradient` of weight and dy, and d_weight[place] = dy[token] . table[row], in one pass."""
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


@compiled
def dot_backward(
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
    """`gradient` of dy and x, and dx[token] += dy[place] * table[row], in one pass."""
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
