"""The order of (token, expert) pairs by expert, in two kernels: one counts, one places.

Each of G programs has a run of tokens. It counts its pairs of each expert; then every program adds
up what lies before its own, and goes through its tokens once more. No program waits for another and
none adds to what another has written: equal inputs give equal bits.

T tokens, B experts, K choices a token, P = T * K pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.pairs import Loads, Pairs
from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.router_loss import losses_of_sums

CONFIG = Config.of(warps=4)
PROGRAMS = 256  # enough to fill a GPU, few enough that each reads the others' counts
BLOCK = 1024  # (token, expert) numbers that a program holds at a time, at least a token's


@triton.jit
def count_kernel(
    index_ptr,
    count_ptr,
    n_pairs,
    n_experts,
    run,
    BLOCK_B: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """The pairs of each expert among `run` of them, by token."""
    program = tl.program_id(0).to(tl.int64)
    b = tl.arange(0, BLOCK_B)
    count = tl.zeros((BLOCK_B,), tl.int32)
    first = program * run
    for start in range(0, run, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        live = (p < run) & (first + p < n_pairs)
        expert = tl.load(index_ptr + first + p, mask=live, other=0).to(tl.int32)
        live = live & (expert >= 0) & (expert < n_experts)
        count += tl.histogram(expert, BLOCK_B, mask=live)
    tl.store(count_ptr + program * n_experts + b, count, mask=b < n_experts)


@triton.jit
def pairs_before(
    count_ptr, n_experts, n_runs, program, BLOCK_B: tl.constexpr, BLOCK_T: tl.constexpr
):
    """The pairs of each expert, and those of them in the runs before this one."""
    b = tl.arange(0, BLOCK_B)
    total = tl.zeros((BLOCK_B,), tl.int32)
    before = tl.zeros((BLOCK_B,), tl.int32)
    for start in range(0, n_runs, BLOCK_T):
        g = start + tl.arange(0, BLOCK_T)
        at = count_ptr + g.to(tl.int64)[:, None] * n_experts + b[None, :]
        mask = (g < n_runs)[:, None] & (b < n_experts)[None, :]
        count = tl.load(at, mask=mask, other=0)
        total += tl.sum(count, axis=0)
        before += tl.sum(tl.where((g < program)[:, None], count, 0), axis=0)
    return total, before


@triton.jit
def _place_block(
    t,
    live,
    next_B,
    places,
    K: tl.constexpr,
    WEIGHT: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Place the pairs of some tokens from where each expert's next one goes; how many each has."""
    index_ptr, weight_ptr, token_ptr, sorted_ptr, place_ptr, start_ptr = places
    b = tl.arange(0, BLOCK_B)
    read = tl.zeros((BLOCK_T, BLOCK_B), tl.int32)
    for k in range(K):
        expert = tl.load(index_ptr + t * K + k, mask=live, other=-1).to(tl.int32)
        read += (expert[:, None] == b[None, :]).to(tl.int32)
    place_TB = next_B[None, :] + tl.cumsum(read, axis=0) - read
    for k in range(K):
        expert = tl.load(index_ptr + t * K + k, mask=live, other=-1).to(tl.int32)
        mine = expert[:, None] == b[None, :]
        place = tl.sum(tl.where(mine, place_TB, 0), axis=1).to(tl.int64)
        place_TB += mine.to(tl.int32)  # a token may read an expert twice
        tl.store(place_ptr + t * K + k, place, mask=live)
        tl.store(token_ptr + place, t, mask=live)
        if WEIGHT:
            weight = tl.load(weight_ptr + t * K + k, mask=live, other=0.0)
            tl.store(sorted_ptr + place, weight, mask=live)
    tl.store(start_ptr + t, t * K, mask=live)
    return tl.sum(read, axis=0)


@triton.jit
def place_kernel(
    index_ptr,
    weight_ptr,
    count_ptr,
    token_ptr,
    sorted_ptr,
    place_ptr,
    start_ptr,
    end_ptr,
    sum_ptr,
    loss_ptr,
    load_ptr,
    slope_ptr,
    n_tokens,
    n_experts,
    run,
    n_runs,
    balance,
    z,
    entropy,
    K: tl.constexpr,
    ALWAYS: tl.constexpr,
    WEIGHT: tl.constexpr,
    LOSS: tl.constexpr,
    LOAD: tl.constexpr,
    SOFTMAX: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Where each pair of a run goes, and what goes there; the program after the last run's makes
    the losses of the runs' sums."""
    program = tl.program_id(0)
    b = tl.arange(0, BLOCK_B)
    known = b < n_experts
    total, next_B = pairs_before(count_ptr, n_experts, n_runs, program, BLOCK_B, BLOCK_T)
    end = tl.cumsum(total, axis=0)
    next_B += end - total
    if program == 0:
        tl.store(end_ptr + b, end.to(tl.int64), mask=known)
        tl.store(start_ptr + n_tokens, tl.sum(total, axis=0).to(tl.int64))
        if LOAD:
            tl.store(load_ptr + b, total.to(tl.float32), mask=b < n_experts - ALWAYS)
    if LOSS:  # noqa: SIM102 - known when compiled, and the rest is not
        if program == n_runs:
            costly = tl.where(b < n_experts - ALWAYS, total, 0)
            sizes = (n_tokens, n_experts - ALWAYS, n_runs)
            weights = (balance, z, entropy)
            ptrs = (sum_ptr, loss_ptr, slope_ptr)
            losses_of_sums(costly, ptrs, sizes, weights, SOFTMAX, BLOCK_B, BLOCK_T)
            return
    first = tl.cast(program, tl.int64) * run
    places = (index_ptr, weight_ptr, token_ptr, sorted_ptr, place_ptr, start_ptr)
    for start in range(0, run, BLOCK_T):
        t = first + start + tl.arange(0, BLOCK_T)
        live = (start + tl.arange(0, BLOCK_T) < run) & (t < n_tokens)
        next_B += _place_block(t, live, next_B, places, K, WEIGHT, BLOCK_B, BLOCK_T)


class Runs(NamedTuple):
    """How T tokens are dealt to programs.

    length: tokens of a program's run.
    number: of runs.
    """

    length: int
    number: int
    BLOCK_B: int
    BLOCK_T: int

    @classmethod
    def of(cls, n_tokens: int, n_experts: int) -> Runs:
        """Whole blocks of tokens each; at least one run."""
        block_b = max(16, triton.next_power_of_2(n_experts))
        block_t = max(1, min(32, BLOCK // block_b))
        blocks = max(1, triton.cdiv(n_tokens, block_t))
        length = triton.cdiv(blocks, min(PROGRAMS, blocks)) * block_t
        return cls(length, max(1, triton.cdiv(n_tokens, length)), block_b, block_t)

    @property
    def blocks(self) -> dict[str, int]:
        """As a launch wants them."""
        return {"BLOCK_B": self.BLOCK_B, "BLOCK_T": self.BLOCK_T}


class Placed(NamedTuple):
    """The pairs in their order.

    token_P, end_B: the token of each, and where each expert's end.
    place_P, start_T1: the pairs by token, and where each token's begin and the last one's end.
    """

    token_P: Tensor
    end_B: Tensor
    place_P: Tensor
    start_T1: Tensor

    @classmethod
    def room(cls, index_TK: Tensor, n_experts: int) -> Placed:
        """For the pairs of (T, K)."""
        n_tokens, k = index_TK.shape
        sizes = (n_tokens * k, n_experts, n_tokens * k, n_tokens + 1)
        return cls(*(index_TK.new_empty(size, dtype=torch.int64) for size in sizes))

    @property
    def pairs(self) -> Pairs:
        """As the operations take them."""
        return Pairs(self.token_P, Loads(self.end_B), placed=(self.place_P, self.start_T1))


def order_pairs(
    index_TK: Tensor, weight_TK: Tensor | None, n_experts: int
) -> tuple[Pairs, Tensor | None]:
    """As workers.kernels.api.pair_order says."""
    placed = Placed(*pair_order(index_TK, n_experts))
    if weight_TK is None:
        return placed.pairs, None
    # One source an element: the gradient is a plain copy.
    weight_P = torch.empty_like(weight_TK).flatten().scatter(0, placed.place_P, weight_TK.flatten())
    return placed.pairs, weight_P


@torch.library.custom_op("ffn_nas::pair_order", mutates_args=())
def pair_order(index_TK: Tensor, n_experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`Placed` of the experts that each token reads, (T, K)."""
    index_TK, (n_tokens, k) = index_TK.contiguous(), index_TK.shape
    runs, placed = Runs.of(n_tokens, n_experts), Placed.room(index_TK, n_experts)
    count_GB = index_TK.new_empty(runs.number, n_experts, dtype=torch.int32)
    launch(
        count_kernel,
        runs.number,
        CONFIG,
        *(index_TK, count_GB, n_tokens * k, n_experts, runs.length * k),
        BLOCK_B=runs.BLOCK_B,
        BLOCK_P=BLOCK,
    )
    place(index_TK, count_GB, placed, runs)
    return placed


def place(
    index_TK: Tensor,
    count_GB: Tensor,
    placed: Placed,
    runs: Runs,
    weight: tuple[Tensor, Tensor] | None = None,
    losses: tuple[Any, ...] = (),
    always: int = 0,
    **flags: bool,
) -> None:
    """Launch `place_kernel`.

    index_TK: contiguous.
    weight: (T, K), and room for them in the pairs' order, (P,).
    losses: the runs' sums, room for loss, loads and slopes, and the weights of the three losses.
    always: experts that no loss knows of, the last.
    """
    n_tokens, k = index_TK.shape
    weight_TK, sorted_P = weight or (None, None)
    *tensors, balance, z, entropy = losses or (*[None] * 4, 0.0, 0.0, 0.0)
    launch(
        place_kernel,
        runs.number + flags.get("LOSS", False),
        CONFIG,
        *(index_TK, weight_TK, count_GB, placed.token_P, sorted_P, placed.place_P),
        *(placed.start_T1, placed.end_B, *tensors),
        *(n_tokens, placed.end_B.numel(), runs.length, runs.number),
        *(balance, z, entropy),
        K=k,
        ALWAYS=always,
        WEIGHT=weight is not None,
        **{"LOSS": False, "LOAD": False, "SOFTMAX": True} | flags,
        **runs.blocks,
    )


@pair_order.register_fake
def _(index_TK: Tensor, n_experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return Placed.room(index_TK, n_experts)
