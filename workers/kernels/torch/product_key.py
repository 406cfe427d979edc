"""Product-key search in torch.

S = 2 H halves of H heads, T tokens, C width of half a query, R sub-keys of a half, J = min(K, R)
candidates of a half, Q pairs of them, K choices of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product_key_search(query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices, (H, T, K) both, as workers.kernels.api.product_key says."""
    (n_halves, n_tokens, _), root = query_STC.shape, sub_keys_SRC.shape[1]
    # No sum of the top k has a half outside that half's top k.
    score_STR = torch.bmm(query_STC, sub_keys_SRC.transpose(1, 2))
    half_STJ, place_STJ = score_STR.topk(min(k, root), dim=2)
    half_H2TJ = half_STJ.view(n_halves // 2, 2, n_tokens, half_STJ.shape[2])
    best_H2TK = best_sums(half_H2TJ.detach(), k)
    place_H2TK = place_STJ.view_as(half_H2TJ).gather(3, best_H2TK)
    score_HTK = half_H2TJ.gather(3, best_H2TK).sum(1)
    return score_HTK, place_H2TK[:, 0] * root + place_H2TK[:, 1]


def best_sums(half_H2TJ: Tensor, k: int) -> Tensor:
    """The places of the k largest sums of one entry of each half, (H, 2, T, K); both halves
    descend."""
    n_half = half_H2TJ.shape[3]
    # The sum of the ath and the bth, counted from 1, has a * b - 1 others at least as large.
    places = range(n_half)
    pairs = [(a, b) for a in places for b in places if (a + 1) * (b + 1) <= k]
    first_Q, second_Q = torch.tensor(pairs, device=half_H2TJ.device).unbind(1)
    first_HTJ, second_HTJ = half_H2TJ.unbind(1)
    sum_HTQ = first_HTJ.index_select(2, first_Q) + second_HTJ.index_select(2, second_Q)
    pair_HTK = sum_HTQ.topk(k).indices
    return torch.stack((first_Q.take(pair_HTK), second_Q.take(pair_HTK)), dim=1)
