"""A learned router's choice: two kernels forward, of which the second is that of the pairs' order,
and one backward.

T tokens, B experts, K choices a token, P = T * K (token, expert) pairs sorted by expert, G runs of
tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.choice import Choice, MeanOver, Rule
from workers.kernels.triton.config import launch
from workers.kernels.triton.pair_order import CONFIG, Placed, Runs, place
from workers.kernels.triton.router_loss import before_normalizing, gates_of

LEAST = 1e-20  # what chosen weights are divided by at least


@triton.jit
def _largest(
    score,
    p,
    live,
    n_experts,
    K: tl.constexpr,
    ALWAYS: tl.constexpr,
    LEAST: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The K experts of the largest scores of each row, the first of equal ones, and those that are
    always read; their weights; and how often each expert is one of a live row's."""
    b, k = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_K)
    score = tl.where((b < n_experts)[None, :], score, float("-inf"))
    index = tl.zeros((BLOCK_T, BLOCK_K), tl.int32)
    weight = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
    count = tl.zeros((BLOCK_B,), tl.int32)
    for n in range(K):
        _, at = tl.max(score, axis=1, return_indices=True)
        # Padding may win from NaN: never tell an expert that is none.
        at = tl.minimum(at, n_experts - 1)
        mine = b[None, :] == at[:, None]
        best = tl.sum(tl.where(mine, p, 0.0), axis=1)
        index = tl.where(k[None, :] == n, at[:, None], index)
        weight = tl.where(k[None, :] == n, best[:, None], weight)
        score = tl.where(mine, float("-inf"), score)
        count += tl.sum((mine & live[:, None]).to(tl.int32), axis=0)
    if NORMALIZE:
        weight /= tl.maximum(tl.sum(weight, axis=1), LEAST)[:, None]
    if ALWAYS:
        index = tl.where((k >= K)[None, :], n_experts + k[None, :] - K, index)
        weight = tl.where((k >= K)[None, :], 1.0, weight)
        last = (b >= n_experts) & (b < n_experts + ALWAYS)
        count += tl.where(last, tl.sum(live.to(tl.int32), axis=0), 0)
    return index, weight, count


@triton.jit
def choose_kernel(
    z_ptr,
    bias_ptr,
    index_ptr,
    weight_ptr,
    count_ptr,
    sum_ptr,
    n_tokens,
    n_experts,
    run,
    stride_t,
    K: tl.constexpr,
    ALWAYS: tl.constexpr,
    LEAST: tl.constexpr,
    BIAS: tl.constexpr,
    LOSS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SOFTMAX: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The experts and weights of a run of tokens, its pairs of each expert, and its sums."""
    program = tl.program_id(0).to(tl.int64)
    b, k = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_K)
    known = b < n_experts
    count = tl.zeros((BLOCK_B,), tl.int32)
    shares = tl.zeros((BLOCK_B,), tl.float32)
    softs = tl.zeros((BLOCK_B,), tl.float32)
    squares = tl.zeros((BLOCK_T,), tl.float32)
    for start in range(0, run, BLOCK_T):
        t = program * run + start + tl.arange(0, BLOCK_T)
        live = (start + tl.arange(0, BLOCK_T) < run) & (t < n_tokens)
        mask = live[:, None] & known[None, :]
        z = tl.load(z_ptr + t[:, None] * stride_t + b[None, :], mask=mask, other=0.0)
        p, soft, log = gates_of(z.to(tl.float32), known, SOFTMAX)
        score = p
        if BIAS:
            score += tl.load(bias_ptr + b, mask=known, other=0.0).to(tl.float32)[None, :]
        index, weight, read = _largest(
            score, p, live, n_experts, K, ALWAYS, LEAST, NORMALIZE, BLOCK_T, BLOCK_B, BLOCK_K
        )
        count += read
        at_TK = t[:, None] * (K + ALWAYS) + k[None, :]
        kept = live[:, None] & (k < K + ALWAYS)[None, :]
        tl.store(index_ptr + at_TK, index, mask=kept)
        tl.store(weight_ptr + at_TK, weight, mask=kept)
        if LOSS:
            softs += tl.sum(tl.where(live[:, None], soft, 0.0), axis=0)
            squares += tl.where(live, log * log, 0.0)
            if not SOFTMAX:
                share = p / tl.sum(p, axis=1)[:, None]
                shares += tl.sum(tl.where(live[:, None], share, 0.0), axis=0)
    n_all = n_experts + ALWAYS
    tl.store(count_ptr + program * n_all + b, count, mask=b < n_all)
    if LOSS:
        of_run = sum_ptr + program * (2 * n_experts + 1)
        tl.store(of_run + b, shares, mask=known)
        tl.store(of_run + n_experts + b, softs, mask=known)
        tl.store(of_run + 2 * n_experts, tl.sum(squares, axis=0))


@triton.jit
def choice_gradient_kernel(
    z_ptr,
    index_ptr,
    place_ptr,
    dweight_ptr,
    dloss_ptr,
    slope_ptr,
    dz_ptr,
    n_tokens,
    n_experts,
    stride_t,
    z_weight,
    K: tl.constexpr,
    ALWAYS: tl.constexpr,
    LEAST: tl.constexpr,
    WEIGHT: tl.constexpr,
    LOSS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SOFTMAX: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The gradient in BLOCK_T tokens' logits, for those in the pairs' weights and in the loss."""
    b = tl.arange(0, BLOCK_B)
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    live, known = t < n_tokens, b < n_experts
    mask = live[:, None] & known[None, :]
    z = tl.load(z_ptr + t[:, None] * stride_t + b[None, :], mask=mask, other=0.0)
    p, soft, log = gates_of(z.to(tl.float32), known, SOFTMAX)
    dp = tl.zeros((BLOCK_T, BLOCK_B), tl.float32)
    dz = tl.zeros_like(dp)
    if WEIGHT:
        chosen = tl.zeros((BLOCK_T, BLOCK_B), tl.int32)
        for k in range(K):
            expert = tl.load(index_ptr + t * (K + ALWAYS) + k, mask=live, other=-1)
            place = tl.load(place_ptr + t * (K + ALWAYS) + k, mask=live, other=0)
            d = tl.load(dweight_ptr + place, mask=live, other=0.0).to(tl.float32)
            mine = expert[:, None] == b[None, :]
            dp += tl.where(mine, d[:, None], 0.0)
            chosen += mine.to(tl.int32)
        if NORMALIZE:
            dp = before_normalizing(dp, p, chosen > 0, LEAST)
    if LOSS:
        scale = tl.load(dloss_ptr).to(tl.float32)
        in_share = scale * tl.load(slope_ptr + b, mask=known, other=0.0)[None, :]
        in_soft = scale * tl.load(slope_ptr + n_experts + b, mask=known, other=0.0)[None, :]
        if SOFTMAX:
            dp += in_share
        else:
            total = tl.sum(p, axis=1)[:, None]
            mean = tl.sum(p * in_share, axis=1)[:, None] / total
            dp += (in_share - mean) / total
        dz += soft * (in_soft - tl.sum(soft * in_soft, axis=1)[:, None])
        dz += scale * (2.0 * z_weight / n_tokens) * log[:, None] * soft
    if SOFTMAX:
        dz += p * (dp - tl.sum(p * dp, axis=1)[:, None])
    else:
        dz += dp * p * (1.0 - p)
    dz_ptr += t[:, None] * stride_t + b[None, :]
    tl.store(dz_ptr, dz.to(dz_ptr.dtype.element_ty), mask=mask)


class Chosen(NamedTuple):
    """What the operator gives; (0,) for what the rule does not want.

    weight_P, loss, load_B: as in `Choice`.
    token_P, end_B, place_P, start_T1: as in `Placed`.
    index_TK, slope_2B: for backward, the experts, and the loss's slopes.
    """

    weight_P: Tensor
    loss: Tensor
    load_B: Tensor
    token_P: Tensor
    end_B: Tensor
    place_P: Tensor
    start_T1: Tensor
    index_TK: Tensor
    slope_2B: Tensor

    @classmethod
    def room(cls, z_TB: Tensor, k: int, always: int, counts: bool, has_loss: bool) -> Chosen:
        """For the choice of k experts, and those that are always read."""
        (n_tokens, n_experts), n_read = z_TB.shape, k + always
        index_TK = z_TB.new_empty(n_tokens, n_read, dtype=torch.int32)
        of_loss: tuple[tuple[int, ...], int] = ((), 2 * n_experts) if has_loss else ((0,), 0)
        sizes = ((n_tokens * n_read,), of_loss[0], (n_experts if counts else 0,), (of_loss[1],))
        weights, loss, loads, slopes = (z_TB.new_empty(size, dtype=torch.float32) for size in sizes)
        return cls(
            weights, loss, loads, *Placed.room(index_TK, n_experts + always), index_TK, slopes
        )

    @property
    def placed(self) -> Placed:
        """The pairs in their order."""
        return Placed(self.token_P, self.end_B, self.place_P, self.start_T1)


def expert_choice(
    z_TB: Tensor, bias_B: Tensor | None, rule: Rule, mean_over: MeanOver | None
) -> Choice:
    """As workers.kernels.api.choice says, of a batch in one place."""
    weights = (rule.balance, rule.z, rule.entropy)
    ways = (rule.k, rule.always, rule.softmax, rule.normalize, rule.counts)
    found = Chosen(*choice(z_TB.contiguous(), bias_B, *ways, *weights))
    load_B, loss = found.load_B if rule.counts else None, found.loss if rule.has_loss else None
    return Choice(found.placed.pairs, found.weight_P, load_B, loss)


@torch.library.custom_op("ffn_nas::expert_choice", mutates_args=())
def choice(
    z_TB: Tensor,
    bias_B: Tensor | None,
    k: int,
    always: int,
    softmax: bool,
    normalize: bool,
    counts: bool,
    balance: float,
    z: float,
    entropy: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`Chosen`, of contiguous logits."""
    (n_tokens, n_experts), has_loss = z_TB.shape, bool(balance or z or entropy)
    runs = Runs.of(n_tokens, n_experts + always)
    room = Chosen.room(z_TB, k, always, counts, has_loss)
    count_GB = z_TB.new_empty(runs.number, n_experts + always, dtype=torch.int32)
    sum_G = z_TB.new_empty(runs.number, 2 * n_experts + 1, dtype=torch.float32)
    weight_TK = torch.empty_like(room.index_TK, dtype=torch.float32)
    flags = {"LOSS": has_loss, "SOFTMAX": softmax}
    launch(
        choose_kernel,
        runs.number,
        CONFIG,
        *(z_TB, bias_B, room.index_TK, weight_TK, count_GB, sum_G),
        *(n_tokens, n_experts, runs.length, z_TB.stride(0)),
        **{"K": k, "ALWAYS": always, "LEAST": LEAST, "BIAS": bias_B is not None} | flags,
        NORMALIZE=normalize,
        BLOCK_K=triton.next_power_of_2(k + always),
        **runs.blocks,
    )
    losses = (sum_G, room.loss, room.load_B, room.slope_2B, balance, z, entropy)
    weight = weight_TK, room.weight_P
    flags |= {"LOAD": counts}
    place(room.index_TK, count_GB, room.placed, runs, weight, losses, always, **flags)
    return room


@choice.register_fake
def _(z_TB: Tensor, bias_B: Tensor | None, k: int, *rest: Any) -> tuple[Tensor, ...]:
    always, _, _, counts, *weights = rest
    return Chosen.room(z_TB, k, always, counts, any(weights))


@torch.library.custom_op("ffn_nas::expert_choice_backward", mutates_args=())
def choice_backward(
    dweight_P: Tensor | None,
    dloss: Tensor | None,
    z_TB: Tensor,
    index_TK: Tensor,
    place_P: Tensor,
    slope_2B: Tensor,
    always: int,
    softmax: bool,
    normalize: bool,
    z: float,
) -> Tensor:
    """The gradient in the logits, for those in the weights and in the loss; None for none."""
    (n_tokens, n_experts), dz_TB = z_TB.shape, torch.empty_like(z_TB)
    if n_tokens == 0:
        return dz_TB
    runs = Runs.of(n_tokens, n_experts)
    launch(
        choice_gradient_kernel,
        triton.cdiv(n_tokens, runs.BLOCK_T),
        CONFIG,
        *(z_TB, index_TK, place_P, None if dweight_P is None else dweight_P.contiguous()),
        *(dloss, slope_2B, dz_TB, n_tokens, n_experts, z_TB.stride(0), z),
        K=index_TK.shape[1] - always,
        ALWAYS=always,
        LEAST=LEAST,
        NORMALIZE=normalize,
        SOFTMAX=softmax,
        WEIGHT=dweight_P is not None,
        LOSS=dloss is not None,
        **runs.blocks,
    )
    return dz_TB


@choice_backward.register_fake
def _(dweight_P: Tensor | None, dloss: Tensor | None, z_TB: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(z_TB)


def _context(ctx: Any, inputs: Any, output: Any) -> None:
    z_TB, _, _, *ways, _, balance, z, entropy = inputs
    made = Chosen(*output)
    ctx.mark_non_differentiable(*made[2:])
    # Who uses the loss alone, or the weights alone, has no gradient of the other.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z_TB, made.index_TK, made.place_P, made.slope_2B)
    ctx.ways, ctx.has_loss = (*ways, z), bool(balance or z or entropy)


def _backward(ctx: Any, dweight_P: Tensor | None, dloss: Tensor | None, *rest: Any) -> Any:
    dloss = dloss if ctx.has_loss else None
    dz_TB = choice_backward(dweight_P, dloss, *ctx.saved_tensors, *ctx.ways)
    return dz_TB, *[None] * 9


choice.register_autograd(_backward, setup_context=_context)
