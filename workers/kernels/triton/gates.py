"""Sigmoid gates with a threshold: a kernel forward, with parts of the loss, and one backward.

T tokens, B experts, G programs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.choice import Threshold
from workers.kernels.triton.config import launch
from workers.kernels.triton.pair_order import CONFIG, Runs


@triton.jit
def _gates(z, known, n_experts, tau):
    """The gates, which are above the threshold, and which are open."""
    p = tl.where(known, tl.sigmoid(z), 0.0)
    above = known & (p > tau)
    shut = tl.sum(above.to(tl.int32), axis=1) == 0
    _, best = tl.max(tl.where(known, p, -1.0), axis=1, return_indices=True)
    b = tl.arange(0, p.shape[1])
    largest = b[None, :] == tl.minimum(best, n_experts - 1)[:, None]
    return p, above, above | (shut[:, None] & largest)


@triton.jit
def gates_kernel(
    z_ptr,
    weight_ptr,
    sum_ptr,
    n_tokens,
    n_experts,
    stride_t,
    tau,
    sparsity,
    RENORMALIZE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The weights of BLOCK_T tokens, and their part of the loss."""
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    b = tl.arange(0, BLOCK_B)
    mask = (t < n_tokens)[:, None] & (b < n_experts)[None, :]
    at = t[:, None] * stride_t + b[None, :]
    z = tl.load(z_ptr + at, mask=mask, other=0.0).to(tl.float32)
    p, above, opened = _gates(z, mask, n_experts, tau)
    weight = tl.where(opened, p, 0.0)
    if RENORMALIZE:
        n_open = tl.maximum(tl.sum(opened.to(tl.int32), axis=1), 1)
        weight *= (n_experts / n_open.to(tl.float32))[:, None]
    tl.store(weight_ptr + at, weight.to(weight_ptr.dtype.element_ty), mask=mask)
    total = tl.sum(tl.sum(tl.where(above, p, 0.0), axis=1), axis=0)
    tl.store(sum_ptr + tl.program_id(0), total * (sparsity / n_tokens / n_experts))


@triton.jit
def gates_gradient_kernel(
    z_ptr,
    dweight_ptr,
    dloss_ptr,
    dz_ptr,
    n_tokens,
    n_experts,
    stride_t,
    tau,
    sparsity,
    WEIGHT: tl.constexpr,
    LOSS: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The gradient in the logits of BLOCK_T tokens: that of p, open or not."""
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    b = tl.arange(0, BLOCK_B)
    mask = (t < n_tokens)[:, None] & (b < n_experts)[None, :]
    at = t[:, None] * stride_t + b[None, :]
    z = tl.load(z_ptr + at, mask=mask, other=0.0).to(tl.float32)
    p, _, opened = _gates(z, mask, n_experts, tau)
    dp = tl.zeros((BLOCK_T, BLOCK_B), tl.float32)
    if WEIGHT:
        dp += tl.load(dweight_ptr + at, mask=mask, other=0.0).to(tl.float32)
        if RENORMALIZE:
            n_open = tl.maximum(tl.sum(opened.to(tl.int32), axis=1), 1)
            dp *= (n_experts / n_open.to(tl.float32))[:, None]
    if LOSS:
        dp += tl.load(dloss_ptr).to(tl.float32) * (sparsity / n_tokens / n_experts)
    dz = dp * p * (1.0 - p)
    tl.store(dz_ptr + at, dz.to(dz_ptr.dtype.element_ty), mask=mask)


def threshold_gates(z_TB: Tensor, rule: Threshold) -> tuple[Tensor, Tensor | None]:
    """As workers.kernels.api.gates says."""
    weight_TB, loss = gates(z_TB.contiguous(), rule.tau, rule.renormalize, rule.sparsity)
    return weight_TB, loss if rule.sparsity else None


@torch.library.custom_op("ffn_nas::threshold_gates", mutates_args=())
def gates(z_TB: Tensor, tau: float, renormalize: bool, sparsity: float) -> tuple[Tensor, Tensor]:
    """Weights (T, B) and loss (), of contiguous logits; without a weight of the loss, (0,)."""
    (n_tokens, n_experts), weight_TB = z_TB.shape, torch.empty_like(z_TB)
    runs = Runs.of(n_tokens, n_experts)
    programs = triton.cdiv(n_tokens, runs.BLOCK_T)
    sum_G = z_TB.new_empty(programs, dtype=torch.float32)
    if programs:
        launch(
            gates_kernel,
            programs,
            CONFIG,
            *(z_TB, weight_TB, sum_G, n_tokens, n_experts, z_TB.stride(0), tau, sparsity),
            RENORMALIZE=renormalize,
            **runs.blocks,
        )
    return weight_TB, sum_G.sum() if sparsity else z_TB.new_empty(0)


@gates.register_fake
def _(z_TB: Tensor, tau: float, renormalize: bool, sparsity: float) -> tuple[Tensor, Tensor]:
    loss: tuple[int, ...] = () if sparsity else (0,)
    return torch.empty_like(z_TB), z_TB.new_empty(loss, dtype=torch.float32)


@torch.library.custom_op("ffn_nas::threshold_gates_backward", mutates_args=())
def gates_backward(
    dweight_TB: Tensor | None,
    dloss: Tensor | None,
    z_TB: Tensor,
    tau: float,
    renormalize: bool,
    sparsity: float,
) -> Tensor:
    """The gradient in the logits, for those in the weights and in the loss; None for none."""
    (n_tokens, n_experts), dz_TB = z_TB.shape, torch.empty_like(z_TB)
    runs = Runs.of(n_tokens, n_experts)
    if n_tokens:
        launch(
            gates_gradient_kernel,
            triton.cdiv(n_tokens, runs.BLOCK_T),
            CONFIG,
            *(z_TB, None if dweight_TB is None else dweight_TB.contiguous(), dloss, dz_TB),
            *(n_tokens, n_experts, z_TB.stride(0), tau, sparsity),
            WEIGHT=dweight_TB is not None,
            LOSS=dloss is not None,
            RENORMALIZE=renormalize,
            **runs.blocks,
        )
    return dz_TB


@gates_backward.register_fake
def _(dweight_TB: Tensor | None, dloss: Tensor | None, z_TB: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(z_TB)


def _context(ctx: Any, inputs: Any, output: Any) -> None:
    z_TB, *ctx.ways = inputs
    # Who uses the loss alone, or the weights alone, has no gradient of the other.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z_TB)


def _backward(ctx: Any, dweight_TB: Tensor | None, dloss: Tensor | None) -> Any:
    dloss = dloss if ctx.ways[2] else None
    return gates_backward(dweight_TB, dloss, *ctx.saved_tensors, *ctx.ways), *[None] * 3


gates.register_autograd(_backward, setup_context=_context)
