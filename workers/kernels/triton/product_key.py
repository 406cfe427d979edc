"""Product-key top-k: each half's best in one program, then the best of their sums.

H heads, S = 2 H halves, T tokens, R sub-keys of a half of C numbers, N = R * R keys, K choices,
J = min(K, R) of a half.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.pick import pick
from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

CONFIGS = (Config.of(warps=1), Config.of(warps=2), Config.of(warps=4))


@triton.jit
def _best_of_half(score_ptr, root, J: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_R: tl.constexpr):
    r, j = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_J)
    score = tl.load(score_ptr + r, mask=r < root, other=float("-inf")).to(tl.float32)
    best = tl.full((BLOCK_J,), float("-inf"), tl.float32)
    place = tl.zeros((BLOCK_J,), tl.int32)
    for n in range(J):
        top, at = tl.max(score, axis=0, return_indices=True)
        best = tl.where(j == n, top, best)
        # Padding may win from NaN: never tell a place outside the table.
        place = tl.where(j == n, tl.minimum(at, root - 1), place)
        score = tl.where(r == at, float("-inf"), score)
    return best, place


@triton.jit
def product_key_kernel(
    score_ptr,
    index_ptr,
    n_tokens,
    root,
    stride_sh,
    stride_s2,
    stride_st,
    stride_oh,
    stride_ot,
    J: tl.constexpr,
    K: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """A head's best sums for one token."""
    head = (tl.program_id(0) // n_tokens).to(tl.int64)
    token = (tl.program_id(0) % n_tokens).to(tl.int64)
    score_ptr += head * stride_sh + token * stride_st
    best_1, place_1 = _best_of_half(score_ptr, root, J, BLOCK_J, BLOCK_R)
    best_2, place_2 = _best_of_half(score_ptr + stride_s2, root, J, BLOCK_J, BLOCK_R)
    # No sum of the top K has a half outside that half's top K.
    total = tl.reshape(best_1[:, None] + best_2[None, :], (BLOCK_J * BLOCK_J,))
    j, k = tl.arange(0, BLOCK_J), tl.arange(0, BLOCK_K)
    pair = tl.arange(0, BLOCK_J * BLOCK_J)
    index = tl.zeros((BLOCK_K,), tl.int64)
    for n in range(K):
        _, at = tl.max(total, axis=0, return_indices=True)
        first = tl.sum(tl.where(j == at // BLOCK_J, place_1, 0), axis=0).to(tl.int64)
        second = tl.sum(tl.where(j == at % BLOCK_J, place_2, 0), axis=0).to(tl.int64)
        index = tl.where(k == n, first * root + second, index)
        total = tl.where(pair == at, float("-inf"), total)
    out = head * stride_oh + token * stride_ot + k
    tl.store(index_ptr + out, index, mask=k < K)


@torch.library.custom_op("ffn_nas::product_key", mutates_args=())
def best_keys(score_H2TR: Tensor, k: int) -> Tensor:
    """The keys of the k largest sums of a first and a second half's score, (H, T, K).

    Key (a, b) has index a * R + b; sums fall along K. Scores must be finite and k at most R * R.
    Not differentiable: gather the halves' scores at the indices for a gradient.
    """
    heads, _, n_tokens, root = score_H2TR.shape
    if not 1 <= k <= root * root:
        raise ValueError(f"k must be between 1 and the {root * root} keys: got {k}")
    score_H2TR = score_H2TR.contiguous()
    index_HTK = torch.empty(heads, n_tokens, k, dtype=torch.int64, device=score_H2TR.device)
    if index_HTK.numel() == 0:
        return index_HTK
    half = min(k, root)

    def run(config: Config) -> None:
        launch(
            product_key_kernel,
            heads * n_tokens,
            config,
            *(score_H2TR, index_HTK, n_tokens, root),
            *(*score_H2TR.stride()[:3], *index_HTK.stride()[:2]),
            J=half,
            K=k,
            BLOCK_J=triton.next_power_of_2(half),
            BLOCK_K=triton.next_power_of_2(k),
            BLOCK_R=triton.next_power_of_2(root),
        )

    run(choose("product_key", CONFIGS, score_H2TR, (root, k), run))
    return index_HTK


@best_keys.register_fake
def _(score_H2TR: Tensor, k: int) -> Tensor:
    heads, _, n_tokens, _ = score_H2TR.shape
    return score_H2TR.new_empty(heads, n_tokens, k, dtype=torch.int64)


def product_key_search(query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices, (H, T, K) both, as workers.kernels.api.product_key says."""
    score_STR = torch.bmm(query_STC, sub_keys_SRC.transpose(1, 2))
    n_tokens, root = score_STR.shape[1:]
    score_H2TR = score_STR.view(-1, 2, n_tokens, root)
    index_HTK = best_keys(score_H2TR.detach(), k)
    place_H2TK = torch.stack((index_HTK // root, index_HTK % root), dim=1)
    return pick(score_H2TR, place_H2TK).sum(1), index_HTK
