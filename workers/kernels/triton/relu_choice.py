"""A ReLU router's choice: two kernels forward and one backward.

As with the order of other pairs, each of G programs has a run of tokens, counts its pairs, and adds
up what lies before them: workers.kernels.triton.pair_order.

T tokens, B experts, P = T * B (token, expert) pairs at most, sorted by expert.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.choice import Choice
from workers.kernels.triton.config import launch
from workers.kernels.triton.pair_order import CONFIG, Placed, Runs, pairs_before

BLOCK = 1024  # logits of a program that makes their gradient


@triton.jit
def count_open_kernel(
    z_ptr,
    count_ptr,
    sum_ptr,
    n_tokens,
    n_experts,
    run,
    stride_t,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The open gates of each expert in a run of tokens, and the sum of all."""
    program = tl.program_id(0).to(tl.int64)
    b = tl.arange(0, BLOCK_B)
    count = tl.zeros((BLOCK_B,), tl.int32)
    total = tl.zeros((BLOCK_B,), tl.float32)
    for start in range(0, run, BLOCK_T):
        t = program * run + start + tl.arange(0, BLOCK_T)
        live = (start + tl.arange(0, BLOCK_T) < run) & (t < n_tokens)
        mask = live[:, None] & (b < n_experts)[None, :]
        z = tl.load(z_ptr + t[:, None] * stride_t + b[None, :], mask=mask, other=0.0).to(tl.float32)
        count += tl.sum((z > 0.0).to(tl.int32), axis=0)
        total += tl.sum(tl.where(z > 0.0, z, 0.0), axis=0)
    tl.store(count_ptr + program * n_experts + b, count, mask=b < n_experts)
    tl.store(sum_ptr + program, tl.sum(total, axis=0))


@triton.jit
def place_open_kernel(
    z_ptr,
    count_ptr,
    sum_ptr,
    coefficient_ptr,
    weight_ptr,
    token_ptr,
    place_ptr,
    order_ptr,
    start_ptr,
    end_ptr,
    loss_ptr,
    slope_ptr,
    n_tokens,
    n_experts,
    run,
    n_runs,
    stride_t,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Where each open gate of a run goes, by expert and by token; the first program makes the
    loss."""
    program = tl.program_id(0)
    b = tl.arange(0, BLOCK_B)
    known = b < n_experts
    total, next_B = pairs_before(count_ptr, n_experts, n_runs, program, BLOCK_B, BLOCK_T)
    by_token = tl.sum(next_B, axis=0)  # pairs of the tokens before
    end = tl.cumsum(total, axis=0)
    next_B += end - total
    if program == 0:
        tl.store(end_ptr + b, end.to(tl.int64), mask=known)
        tl.store(start_ptr + n_tokens, tl.sum(total, axis=0).to(tl.int64))
        weights = tl.zeros((BLOCK_B,), tl.float32)
        for start in range(0, n_runs, BLOCK_B):
            weights += tl.load(sum_ptr + start + b, mask=start + b < n_runs, other=0.0)
        slope = tl.load(coefficient_ptr).to(tl.float32) / n_tokens / n_experts
        tl.store(slope_ptr, slope)
        tl.store(loss_ptr, slope * tl.sum(weights, axis=0))
    for start in range(0, run, BLOCK_T):
        t = tl.cast(program, tl.int64) * run + start + tl.arange(0, BLOCK_T)
        live = (start + tl.arange(0, BLOCK_T) < run) & (t < n_tokens)
        mask = live[:, None] & known[None, :]
        at = t[:, None] * stride_t + b[None, :]
        z = tl.load(z_ptr + at, mask=mask, other=0.0)
        opened = z > 0.0
        one = opened.to(tl.int32)
        n_open = tl.sum(one, axis=1)
        first_T = by_token + tl.cumsum(n_open, axis=0) - n_open
        tl.store(start_ptr + t, first_T.to(tl.int64), mask=live)
        place = next_B[None, :] + tl.cumsum(one, axis=0) - one
        rank = first_T[:, None] + tl.cumsum(one, axis=1) - one
        tl.store(place_ptr + at, place, mask=mask)
        tl.store(weight_ptr + place, z.to(tl.float32), mask=opened)
        tl.store(token_ptr + place, t[:, None] + tl.zeros_like(place), mask=opened)
        tl.store(order_ptr + rank, place.to(tl.int64), mask=opened)
        next_B += tl.sum(one, axis=0)
        by_token += tl.sum(n_open, axis=0)


@triton.jit
def open_gradient_kernel(
    z_ptr,
    place_ptr,
    dweight_ptr,
    dloss_ptr,
    slope_ptr,
    dz_ptr,
    n,
    WEIGHT: tl.constexpr,
    LOSS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient in BLOCK logits: that of an open gate's weight, and the loss's."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(z_ptr + at, mask=at < n, other=0.0)
    dz = tl.zeros((BLOCK,), tl.float32)
    if LOSS:
        dz += tl.load(slope_ptr) * tl.load(dloss_ptr).to(tl.float32)
    if WEIGHT:
        place = tl.load(place_ptr + at, mask=at < n, other=0)
        dz += tl.load(dweight_ptr + place, mask=z > 0.0, other=0.0).to(tl.float32)
    dz = tl.where(z > 0.0, dz, 0.0)
    tl.store(dz_ptr + at, dz.to(dz_ptr.dtype.element_ty), mask=at < n)


class Opened(NamedTuple):
    """What the operator gives.

    weight_P, loss: as in `Choice`.
    token_P, end_B, order_P, start_T1: as in `Placed`.
    place_TB, slope: for backward, where each open gate went, and the loss's slope in it.
    """

    weight_P: Tensor
    loss: Tensor
    token_P: Tensor
    end_B: Tensor
    order_P: Tensor
    start_T1: Tensor
    place_TB: Tensor
    slope: Tensor

    @classmethod
    def room(cls, z_TB: Tensor) -> Opened:
        """For all gates."""
        place_TB = z_TB.new_empty(z_TB.shape, dtype=torch.int32)
        reals = (z_TB.new_empty(size, dtype=torch.float32) for size in ((z_TB.numel(),), (), ()))
        weight_P, loss, slope = reals
        return cls(weight_P, loss, *Placed.room(place_TB, z_TB.shape[1]), place_TB, slope)


def relu_choice(z_TB: Tensor, coefficient: Tensor) -> Choice:
    """As workers.kernels.api.relu_choice says."""
    found = Opened(*open_choice(z_TB.contiguous(), coefficient))
    return Choice(Placed(*found[2:6]).pairs, found.weight_P, None, found.loss)


@torch.library.custom_op("ffn_nas::relu_choice", mutates_args=())
def open_choice(
    z_TB: Tensor, coefficient: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`Opened`, of contiguous logits. What lies beyond the last pair is not written."""
    (n_tokens, n_experts), room = z_TB.shape, Opened.room(z_TB)
    runs = Runs.of(n_tokens, n_experts)
    count_GB = z_TB.new_empty(runs.number, n_experts, dtype=torch.int32)
    sum_G = z_TB.new_empty(runs.number, dtype=torch.float32)
    sizes = (n_tokens, n_experts, runs.length)
    launch(
        count_open_kernel,
        runs.number,
        CONFIG,
        *(z_TB, count_GB, sum_G, *sizes, z_TB.stride(0)),
        **runs.blocks,
    )
    launch(
        place_open_kernel,
        runs.number,
        CONFIG,
        *(z_TB, count_GB, sum_G, coefficient, room.weight_P, room.token_P, room.place_TB),
        *(room.order_P, room.start_T1, room.end_B, room.loss, room.slope),
        *(*sizes, runs.number, z_TB.stride(0)),
        **runs.blocks,
    )
    return room


@open_choice.register_fake
def _(z_TB: Tensor, coefficient: Tensor) -> tuple[Tensor, ...]:
    return Opened.room(z_TB)


@torch.library.custom_op("ffn_nas::relu_choice_backward", mutates_args=())
def open_choice_backward(
    dweight_P: Tensor | None, dloss: Tensor | None, z_TB: Tensor, place_TB: Tensor, slope: Tensor
) -> Tensor:
    """The gradient in the logits, for those in the weights and in the loss; None for none."""
    dz_TB, n = torch.empty_like(z_TB), z_TB.numel()
    if n == 0:
        return dz_TB
    launch(
        open_gradient_kernel,
        triton.cdiv(n, BLOCK),
        CONFIG,
        *(z_TB, place_TB, None if dweight_P is None else dweight_P.contiguous(), dloss, slope),
        *(dz_TB, n),
        WEIGHT=dweight_P is not None,
        LOSS=dloss is not None,
        BLOCK=BLOCK,
    )
    return dz_TB


@open_choice_backward.register_fake
def _(dweight_P: Tensor | None, dloss: Tensor | None, z_TB: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(z_TB)


def _context(ctx: Any, inputs: Any, output: Any) -> None:
    made = Opened(*output)
    ctx.mark_non_differentiable(*made[2:])
    # Who uses the loss alone, or the weights alone, has no gradient of the other.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], made.place_TB, made.slope)


def _backward(ctx: Any, dweight_P: Tensor | None, dloss: Tensor | None, *rest: Any) -> Any:
    return open_choice_backward(dweight_P, dloss, *ctx.saved_tensors), None


open_choice.register_autograd(_backward, setup_context=_context)
