"""Product-key search on a CPU: the scores of a half stay in cache, and its gradient visits the
chosen sub-keys alone.

S = 2 H halves of H heads, T tokens, C width of half a query, R sub-keys of a half, J = min(K, R)
candidates of a half, K choices of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba import ops

CACHED_SCORES = 1 << 18
MOST_CHOICES = 64  # the cost of ranking grows with their square


def product_key_search(query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices a * R + b of each head's k best experts, (H, T, K), the best first.

    The halves of head h are 2 h and 2 h + 1. Differentiable once in the queries and sub-keys.
    """
    return _Search.apply(query_STC, sub_keys_SRC, k)


def top_indices(score: Tensor, k: int) -> Tensor:
    """(..., N) -> (..., K): where the k largest of each row are, the largest first."""
    rows_RN = score.detach().reshape(-1, score.shape[-1]).contiguous()
    place_RK = torch.empty(len(rows_RN), k, dtype=torch.long)
    ops.top_rows(rows_RN, place_RK, rows_RN.new_empty(len(rows_RN), k))
    return place_RK.view(*score.shape[:-1], k)


class _Search(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
        # Queries come from one product for all heads: as they lie in memory, token by token.
        query_TSC, sub_keys_SRC = query_STC.transpose(0, 1).contiguous(), sub_keys_SRC.contiguous()
        (n_halves, n_tokens, _), n_keys = query_STC.shape, sub_keys_SRC.shape[1]
        best_STJ = query_STC.new_empty(n_halves, n_tokens, min(k, n_keys))
        place_STJ = torch.empty(best_STJ.shape, dtype=torch.long)
        # No sum of the top k has a half outside that half's top k.
        at_once = max(1, CACHED_SCORES // max(1, n_keys))
        score_TR = query_STC.new_empty(min(at_once, n_tokens), n_keys)
        for half in range(n_halves):
            for t in range(0, n_tokens, at_once):
                rows = slice(t, min(t + at_once, n_tokens))
                score = score_TR[: rows.stop - rows.start]
                torch.mm(query_TSC[rows, half], sub_keys_SRC[half].t(), out=score)
                ops.top_rows(score, place_STJ[half, rows], best_STJ[half, rows])
        score_HTK = query_STC.new_empty(n_halves // 2, n_tokens, k)
        index_HTK = torch.empty(score_HTK.shape, dtype=torch.long)
        ops.top_sums(best_STJ, place_STJ, n_keys, score_HTK, index_HTK)
        ctx.save_for_backward(query_TSC, sub_keys_SRC, index_HTK)
        ctx.mark_non_differentiable(index_HTK)
        return score_HTK, index_HTK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_score_HTK: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        query_TSC, sub_keys_SRC, index_HTK = ctx.saved_tensors
        d_query_TSC, d_sub_keys_SRC = torch.empty_like(query_TSC), torch.zeros_like(sub_keys_SRC)
        d_score_HTK = d_score_HTK.contiguous()
        ops.search_backward(
            d_score_HTK, index_HTK, query_TSC, sub_keys_SRC, d_query_TSC, d_sub_keys_SRC
        )
        return d_query_TSC.transpose(0, 1), d_sub_keys_SRC, None
