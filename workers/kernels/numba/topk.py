"""Top-k on a CPU. Of a row of scores a bound drops most, and the few left are ranked against one
another: neither has a branch that depends on the numbers, which a sort is full of. Of all sums of
two descending rows, a merge takes the largest.

R rows of N scores, K chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.kernels.numba.library import jit, operator

MANY = 4  # times K: more than these left, as with equal scores, are sorted instead


@jit
def _bound(score_N: Any, k: int, most_N: Any) -> Any:
    """A number that at least k scores reach: the least of the maxima of k disjoint groups."""
    n = len(score_N)
    for i in range(n):
        most_N[i] = score_N[i]
    while n // 2 >= k:
        n //= 2
        for i in range(n):
            a, b = most_N[i], most_N[i + n]
            most_N[i] = a if a > b else b
    least = most_N[0]
    for i in range(1, n):
        least = most_N[i] if most_N[i] < least else least
    return least


@jit
def _rank(score_M: Any, place_M: Any, m: int, place_K: Any, best_K: Any, rank_M: Any) -> bool:
    """Each of m scores goes where as many are larger; False where equal ones met."""
    for a in range(m):
        rank_M[a] = 0
    for b in range(m):
        for a in range(m):
            rank_M[a] += np.int32(score_M[b] > score_M[a])
    kept = 0
    place_K[:] = -1
    for a in range(m):
        if rank_M[a] < len(place_K):
            kept += place_K[rank_M[a]] < 0
            place_K[rank_M[a]], best_K[rank_M[a]] = place_M[a], score_M[a]
    return kept == len(place_K)


@jit
def _insert(score_M: Any, place_M: Any, m: int, place_K: Any, best_K: Any) -> None:
    """The same by insertion, for any m of at least K."""
    kept = 0
    for a in range(m):
        if kept == len(place_K):
            if not score_M[a] > best_K[kept - 1]:
                continue
            kept -= 1
        at = kept
        while at > 0 and best_K[at - 1] < score_M[a]:
            best_K[at], place_K[at] = best_K[at - 1], place_K[at - 1]
            at -= 1
        best_K[at], place_K[at] = score_M[a], place_M[a]
        kept += 1


@jit
def _top_row(
    score_N: Any, place_K: Any, best_K: Any, score_M: Any, place_M: Any, rank_M: Any
) -> None:
    """The K largest of a row, the largest first, and where they are. score_M, place_M, rank_M:
    room for N + 1. A row of which none compares (NaN) gives its first K."""
    n, k = len(score_N), len(place_K)
    least, m = _bound(score_N, k, score_M), 0
    for i in range(n):
        score_M[m], place_M[m] = score_N[i], i
        m += score_N[i] >= least
    if m < k:
        for i in range(k):
            place_K[i], best_K[i] = i, score_N[i]
    elif m > MANY * k or not _rank(score_M, place_M, m, place_K, best_K, rank_M):
        _insert(score_M, place_M, m, place_K, best_K)


@operator("top_rows(Tensor score, Tensor(a!) place, Tensor(b!) best) -> ()")
@jit
def top_rows(score_RN: Any, place_RK: Any, best_RK: Any) -> None:
    """`_top_row` of each row."""
    n = score_RN.shape[1]
    score_M, place_M = np.empty(n + 1, score_RN.dtype), np.empty(n + 1, np.int64)
    rank_M = np.empty(n + 1, np.int32)
    for r in range(len(score_RN)):
        _top_row(score_RN[r], place_RK[r], best_RK[r], score_M, place_M, rank_M)


@operator(
    "top_sums(Tensor best, Tensor place, int n_keys, Tensor(a!) score, Tensor(b!) index) -> ()"
)
@jit
def top_sums(best_STJ: Any, place_STJ: Any, n_keys: int, score_HTK: Any, index_HTK: Any) -> None:
    """The K largest sums of one entry of each half of a head, both halves descending, and the
    sums' places a * n_keys + b. Of equal sums the one with the lower place in the first half."""
    n_half, k = best_STJ.shape[2], score_HTK.shape[2]
    # A merge of rows: row a has the sums of the ath entry of the first half, which descend, and
    # next_J its largest that was not taken. A row is opened when the one before gives its first.
    next_J, taken_J = np.empty(n_half, best_STJ.dtype), np.zeros(n_half, np.int64)
    for h in range(score_HTK.shape[0]):
        for t in range(score_HTK.shape[1]):
            a_J, b_J = best_STJ[2 * h, t], best_STJ[2 * h + 1, t]
            place_a_J, place_b_J = place_STJ[2 * h, t], place_STJ[2 * h + 1, t]
            next_J[0], taken_J[0], low, end = a_J[0] + b_J[0], 0, 0, 1
            for i in range(k):
                best, a = next_J[low], low
                for other in range(low + 1, end):
                    more = next_J[other] > best
                    best, a = next_J[other] if more else best, other if more else a
                b = taken_J[a]
                score_HTK[h, t, i] = best
                index_HTK[h, t, i] = place_a_J[a] * n_keys + place_b_J[b]
                taken_J[a] = b + 1
                next_J[a] = a_J[a] + b_J[b + 1] if b + 1 < n_half else -np.inf
                if a == end - 1 and end < n_half:
                    next_J[end], taken_J[end], end = a_J[end] + b_J[0], 0, end + 1
                # Rows are used up from the first on, also where nothing compares (NaN).
                while low < end - 1 and taken_J[low] == n_half:
                    low += 1


def top_indices(score: Tensor, k: int, ordered: bool) -> Tensor:
    """(..., K), as workers.kernels.api.topk says; the largest first in any case."""
    rows_RN = score.detach().reshape(-1, score.shape[-1]).contiguous()
    place_RK = torch.empty(len(rows_RN), k, dtype=torch.long)
    top_rows(rows_RN, place_RK, rows_RN.new_empty(len(rows_RN), k))
    return place_RK.view(*score.shape[:-1], k)
