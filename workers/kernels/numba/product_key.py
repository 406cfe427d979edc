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

from workers.kernels.numba.library import jit, operator
from workers.kernels.numba.topk import top_rows, top_sums

CACHED_SCORES = 1 << 18


@operator(
    "search_backward(Tensor d_score, Tensor index, Tensor query, Tensor keys, "
    "Tensor(a!) d_query, Tensor(b!) d_keys) -> ()"
)
@jit
def search_backward(
    d_HTK: Any, index_HTK: Any, query_TSC: Any, keys_SRC: Any, d_query_TSC: Any, d_keys_SRC: Any
) -> None:
    """The gradients of both halves' queries, and of their sub-keys added to what is there."""
    n_keys, width = keys_SRC.shape[1], keys_SRC.shape[2]
    for s in range(query_TSC.shape[1]):
        for t in range(query_TSC.shape[0]):
            query_C, d_query_C = query_TSC[t, s], d_query_TSC[t, s]
            d_query_C[:] = 0
            for i in range(d_HTK.shape[2]):
                d, index = d_HTK[s // 2, t, i], index_HTK[s // 2, t, i]
                place = index % n_keys if s % 2 else index // n_keys
                key_C, d_key_C = keys_SRC[s, place], d_keys_SRC[s, place]
                for c in range(width):
                    d_query_C[c] += d * key_C[c]
                    d_key_C[c] += d * query_C[c]


def product_key_search(query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices, (H, T, K) both, as workers.kernels.api.product_key says."""
    found: tuple[Tensor, Tensor] = _Search.apply(query_STC, sub_keys_SRC, k)
    return found


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
                top_rows(score, place_STJ[half, rows], best_STJ[half, rows])
        score_HTK = query_STC.new_empty(n_halves // 2, n_tokens, k)
        index_HTK = torch.empty(score_HTK.shape, dtype=torch.long)
        top_sums(best_STJ, place_STJ, n_keys, score_HTK, index_HTK)
        ctx.save_for_backward(query_TSC, sub_keys_SRC, index_HTK)
        ctx.mark_non_differentiable(index_HTK)
        return score_HTK, index_HTK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_score_HTK: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        query_TSC, sub_keys_SRC, index_HTK = ctx.saved_tensors
        d_query_TSC, d_sub_keys_SRC = torch.empty_like(query_TSC), torch.zeros_like(sub_keys_SRC)
        d_score_HTK = d_score_HTK.contiguous()
        search_backward(
            d_score_HTK, index_HTK, query_TSC, sub_keys_SRC, d_query_TSC, d_sub_keys_SRC
        )
        return d_query_TSC.transpose(0, 1), d_sub_keys_SRC, None
