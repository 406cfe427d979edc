"""Product-key top-k: each half's best in one program, then the best of their sums.

H heads, S = 2 H halves, T tokens, R sub-keys of a half of C numbers, N = R * R keys, K choices,
J = min(K, R) of a half.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    best_ptr,
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
    # No sum of the top K has a half outside that half's top K, and of those with one first half the
    # best is that with the best second half that is left: one candidate a first half.
    j, k = tl.arange(0, BLOCK_J), tl.arange(0, BLOCK_K)
    next_J = tl.zeros((BLOCK_J,), tl.int32)
    total = tl.where(j < J, best_1 + tl.sum(tl.where(j == 0, best_2, 0.0), axis=0), float("-inf"))
    first_K, second_K = tl.zeros((BLOCK_K,), tl.int32), tl.zeros((BLOCK_K,), tl.int32)
    best = tl.zeros((BLOCK_K,), tl.float32)
    for n in range(K):
        top, at = tl.max(total, axis=0, return_indices=True)
        then = tl.sum(tl.where(j == at, next_J, 0), axis=0) + 1
        first_K = tl.where(k == n, at, first_K)
        second_K = tl.where(k == n, then - 1, second_K)
        best = tl.where(k == n, top, best)
        half_2 = tl.sum(tl.where(j == then, best_2, 0.0), axis=0)
        left = tl.where(then < J, best_1 + half_2, float("-inf"))
        total = tl.where(j == at, left, total)
        next_J = tl.where(j == at, then, next_J)
    first = tl.sum(tl.where(j[None, :] == first_K[:, None], place_1[None, :], 0), axis=1)
    second = tl.sum(tl.where(j[None, :] == second_K[:, None], place_2[None, :], 0), axis=1)
    index = first.to(tl.int64) * root + second
    out = head * stride_oh + token * stride_ot + k
    tl.store(index_ptr + out, index, mask=k < K)
    tl.store(best_ptr + out, best.to(best_ptr.dtype.element_ty), mask=k < K)


@triton.jit
def product_key_gradient_kernel(
    dbest_ptr,
    index_ptr,
    dscore_ptr,
    n_tokens,
    root,
    stride_sh,
    stride_s2,
    stride_st,
    stride_oh,
    stride_ot,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """What a head's choices for one token give back to the scores of both halves."""
    head = (tl.program_id(0) // n_tokens).to(tl.int64)
    token = (tl.program_id(0) % n_tokens).to(tl.int64)
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    first, second = tl.zeros((BLOCK_R,), tl.float32), tl.zeros((BLOCK_R,), tl.float32)
    out = head * stride_oh + token * stride_ot + k
    index_K = tl.load(index_ptr + out, mask=k < K, other=0)
    d_K = tl.load(dbest_ptr + out, mask=k < K, other=0.0).to(tl.float32)
    for n in range(K):
        index = tl.sum(tl.where(k == n, index_K, 0), axis=0)
        d = tl.sum(tl.where(k == n, d_K, 0.0), axis=0)
        first += tl.where(r == index // root, d, 0.0)
        second += tl.where(r == index % root, d, 0.0)
    dscore_ptr += head * stride_sh + token * stride_st
    tl.store(dscore_ptr + r, first.to(dscore_ptr.dtype.element_ty), mask=r < root)
    dscore_ptr += stride_s2
    tl.store(dscore_ptr + r, second.to(dscore_ptr.dtype.element_ty), mask=r < root)


@torch.library.custom_op("ffn_nas::product_key", mutates_args=())
def best_keys(score_H2TR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest sums of a first and a second half's score, and their keys, (H, T, K) both.

    Key (a, b) has index a * R + b; sums fall along K. Scores must be finite and k at most R * R.
    Differentiable once in the scores.
    """
    heads, _, n_tokens, root = score_H2TR.shape
    if not 1 <= k <= root * root:
        raise ValueError(f"k must be between 1 and the {root * root} keys: got {k}")
    score_H2TR = score_H2TR.contiguous()
    best_HTK, index_HTK = _room(score_H2TR, k)
    if index_HTK.numel() == 0:
        return best_HTK, index_HTK
    half = min(k, root)

    def run(config: Config) -> None:
        launch(
            product_key_kernel,
            heads * n_tokens,
            config,
            *(score_H2TR, best_HTK, index_HTK, n_tokens, root),
            *(*score_H2TR.stride()[:3], *index_HTK.stride()[:2]),
            J=half,
            K=k,
            BLOCK_J=triton.next_power_of_2(half),
            BLOCK_K=triton.next_power_of_2(k),
            BLOCK_R=triton.next_power_of_2(root),
        )

    run(choose("product_key", CONFIGS, score_H2TR, (root, k), run))
    return best_HTK, index_HTK


def _room(score_H2TR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    # A token's heads lie together, as the layers want them.
    heads, _, n_tokens, _ = score_H2TR.shape
    best_THK = score_H2TR.new_empty(n_tokens, heads, k)
    index_THK = torch.empty_like(best_THK, dtype=torch.int64)
    return best_THK.transpose(0, 1), index_THK.transpose(0, 1)


@best_keys.register_fake
def _(score_H2TR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return _room(score_H2TR, k)


@torch.library.custom_op("ffn_nas::product_key_backward", mutates_args=())
def best_keys_backward(dbest_HTK: Tensor, index_HTK: Tensor, root: int) -> Tensor:
    """The gradient in the scores, (H, 2, T, R), 0 for those of no choice."""
    heads, n_tokens, k = index_HTK.shape
    dbest_HTK = dbest_HTK.transpose(0, 1).contiguous().transpose(0, 1)
    index_HTK = index_HTK.transpose(0, 1).contiguous().transpose(0, 1)
    dscore_H2TR = dbest_HTK.new_empty(heads, 2, n_tokens, root)
    if dscore_H2TR.numel():
        launch(
            product_key_gradient_kernel,
            heads * n_tokens,
            CONFIGS[0],
            *(dbest_HTK, index_HTK, dscore_H2TR, n_tokens, root),
            *(*dscore_H2TR.stride()[:3], *index_HTK.stride()[:2]),
            K=k,
            BLOCK_K=triton.next_power_of_2(k),
            BLOCK_R=triton.next_power_of_2(root),
        )
    return dscore_H2TR


@best_keys_backward.register_fake
def _(dbest_HTK: Tensor, index_HTK: Tensor, root: int) -> Tensor:
    heads, n_tokens, _ = index_HTK.shape
    return dbest_HTK.new_empty(heads, 2, n_tokens, root)


def _context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
    ctx.root = inputs[0].shape[3]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, dbest_HTK: Tensor, dindex: Any) -> tuple[Tensor, None]:
    (index_HTK,) = ctx.saved_tensors
    dscore_H2TR: Tensor = best_keys_backward(dbest_HTK, index_HTK, ctx.root)
    return dscore_H2TR, None


best_keys.register_autograd(_backward, setup_context=_context)


def product_key_search(query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices, (H, T, K) both, as workers.kernels.api.product_key says."""
    score_STR = _Scores.apply(query_STC, sub_keys_SRC)
    best_HTK, index_HTK = best_keys(score_STR.view(-1, 2, *score_STR.shape[1:]), k)
    return best_HTK, index_HTK


class _Scores(torch.autograd.Function):
    """The products of queries and sub-keys, whose gradients lie as those do: torch's own would be
    copied."""

    @staticmethod
    def forward(ctx: Any, query_STC: Tensor, sub_keys_SRC: Tensor) -> Tensor:
        ctx.save_for_backward(query_STC, sub_keys_SRC)
        return torch.bmm(query_STC, sub_keys_SRC.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_STR: Tensor) -> tuple[Tensor, Tensor]:
        query_STC, sub_keys_SRC = ctx.saved_tensors
        dquery_STC = torch.empty_like(query_STC)  # with its strides: a token's halves lie together
        torch.bmm(d_STR, sub_keys_SRC, out=dquery_STC)
        return dquery_STC, torch.bmm(d_STR.transpose(1, 2), query_STC)
