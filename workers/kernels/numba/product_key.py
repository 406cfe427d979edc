"""Product-key search on a CPU: the scores of a half stay in cache, and where there are many
sub-keys its gradient visits the chosen ones alone.

S = 2 H halves of H heads, T tokens, C width of half a query, R sub-keys of a half, J = min(K, R)
candidates of a half, K choices of a head.
"""

from __future__ import annotations

from typing import Any

import numba
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.numba.library import array, jit, operator, tensor_operator
from workers.kernels.numba.topk import top_rows, top_sums

CACHED_SCORES = 1 << 18
# Sub-keys of a half for a choice, up to which all of them are multiplied backward: two products
# cost less than that many visits (docs/speed.md).
KEYS_A_CHOICE = 4
GRADIENTS = "Tensor d_score, Tensor index, Tensor query, Tensor keys, "


# Numbers of experts are divided as short ones, which takes a fraction of the time.
@operator(f"search_backward({GRADIENTS}Tensor(a!) d_query, Tensor(b!) d_keys) -> ()")
@jit
def search_backward(
    d_HTK: Any, index_HTK: Any, query_TSC: Any, keys_SRC: Any, d_query_TSC: Any, d_keys_SRC: Any
) -> None:
    """The gradients of both halves' queries, and of their sub-keys added to what is there."""
    n_keys, width = numba.uint32(keys_SRC.shape[1]), keys_SRC.shape[2]
    for s in range(query_TSC.shape[1]):
        for t in range(query_TSC.shape[0]):
            query_C, d_query_C = query_TSC[t, s], d_query_TSC[t, s]
            d_query_C[:] = 0
            for i in range(d_HTK.shape[2]):
                d, index = d_HTK[s // 2, t, i], numba.uint32(index_HTK[s // 2, t, i])
                place = index % n_keys if s % 2 else index // n_keys
                key_C, d_key_C = keys_SRC[s, place], d_keys_SRC[s, place]
                for c in range(width):
                    d_query_C[c] += d * key_C[c]
                    d_key_C[c] += d * query_C[c]


@jit
def _add_up(d_TK: Any, index_TK: Any, d_score_2TR: Any) -> None:
    """The gradients of a head's scores, both halves', each the sum of those of its choices."""
    n_keys = numba.uint32(d_score_2TR.shape[2])
    d_score_2TR[:] = 0
    for t in range(d_TK.shape[0]):
        for i in range(d_TK.shape[1]):
            index = numba.uint32(index_TK[t, i])
            first = index // n_keys
            d_score_2TR[0, t, first] += d_TK[t, i]
            d_score_2TR[1, t, index - first * n_keys] += d_TK[t, i]


@tensor_operator(f"search_products({GRADIENTS}Tensor(a!) d_query, Tensor(b!) d_keys) -> ()")
def search_products(
    d_HTK: Tensor,
    index_HTK: Tensor,
    query_TSC: Tensor,
    keys_SRC: Tensor,
    d_query_TSC: Tensor,
    d_keys_SRC: Tensor,
) -> None:
    """As `search_backward`, by products with all sub-keys."""
    d_score_2TR = query_TSC.new_empty(2, len(query_TSC), keys_SRC.shape[1])
    for half, keys_RC in enumerate(keys_SRC):
        head, second = divmod(half, 2)
        if not second:
            _add_up(array(d_HTK[head]), array(index_HTK[head]), array(d_score_2TR))
        torch.mm(d_score_2TR[second], keys_RC, out=d_query_TSC[:, half])
        d_keys_SRC[half].addmm_(d_score_2TR[second].t(), query_TSC[:, half])


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
        few = sub_keys_SRC.shape[1] <= KEYS_A_CHOICE * index_HTK.shape[2]
        run = search_products if few else search_backward
        given = d_score_HTK.contiguous(), index_HTK, query_TSC, sub_keys_SRC
        run(*given, d_query_TSC, d_sub_keys_SRC)
        return d_query_TSC.transpose(0, 1), d_sub_keys_SRC, None
