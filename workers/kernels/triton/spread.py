"""Weights of chosen rows, spread over all rows, and their gradient: one program a token.

T tokens, N rows, K choices a token.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch

CONFIG = Config.of(warps=4)
BLOCK = 4096  # rows that a program clears at a time
BLOCK_K = 256  # choices that one reads at a time


@triton.jit
def spread_kernel(
    index_ptr,
    weight_ptr,
    y_ptr,
    n_rows,
    n_choices,
    distinct,
    stride_t,
    WEIGHT: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A token's row of y: cleared, then its choices added, as many at a time as are distinct."""
    token = tl.program_id(0).to(tl.int64)
    y_ptr += token * stride_t
    for start in range(0, n_rows, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        nothing = tl.zeros((BLOCK_N,), y_ptr.dtype.element_ty)
        tl.store(y_ptr + n, nothing, mask=n < n_rows)
    k = tl.arange(0, BLOCK_K)
    for first in range(0, n_choices, distinct):
        # What the program has stored is read and stored anew by other threads of it.
        tl.debug_barrier()
        live = k < distinct
        place = token * n_choices + first + k
        row = tl.load(index_ptr + place, mask=live, other=0)
        weight = tl.full((BLOCK_K,), 1.0, tl.float32)
        if WEIGHT:
            weight = tl.load(weight_ptr + place, mask=live, other=0.0).to(tl.float32)
        if ADD:
            weight += tl.load(y_ptr + row, mask=live, other=0.0, volatile=True).to(tl.float32)
        tl.store(y_ptr + row, weight.to(y_ptr.dtype.element_ty), mask=live)


@triton.jit
def spread_gradient_kernel(dy_ptr, index_ptr, d_ptr, n_choices, stride_t, BLOCK_K: tl.constexpr):
    """What a token's choices find at their places."""
    token = tl.program_id(0).to(tl.int64)
    for start in range(0, n_choices, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        place = token * n_choices + k
        row = tl.load(index_ptr + place, mask=k < n_choices, other=0)
        d = tl.load(dy_ptr + token * stride_t + row, mask=k < n_choices, other=0.0)
        tl.store(d_ptr + place, d.to(d_ptr.dtype.element_ty), mask=k < n_choices)


def spread(
    weight_TK: Tensor | None, index_TK: Tensor, n_rows: int, distinct: int, dtype: torch.dtype
) -> Tensor:
    """As workers.kernels.api.spread says. Each element is written by one program, in one order:
    equal inputs give equal bits."""
    y_TN: Tensor = spread_weights(weight_TK, index_TK, n_rows, distinct, dtype)
    return y_TN


@torch.library.custom_op("ffn_nas::spread", mutates_args=())
def spread_weights(
    weight_TK: Tensor | None, index_TK: Tensor, n_rows: int, distinct: int, dtype: torch.dtype
) -> Tensor:
    """`spread`, as an operator that torch knows."""
    n_tokens, n_choices = index_TK.shape
    y_TN = torch.empty(n_tokens, n_rows, dtype=dtype, device=index_TK.device)
    if y_TN.numel():
        launch(
            spread_kernel,
            n_tokens,
            CONFIG,
            index_TK.contiguous(),
            None if weight_TK is None else weight_TK.contiguous(),
            *(y_TN, n_rows, n_choices, distinct, y_TN.stride(0)),
            WEIGHT=weight_TK is not None,
            ADD=n_choices > distinct,
            BLOCK_K=triton.next_power_of_2(distinct),
            BLOCK_N=min(BLOCK, triton.next_power_of_2(n_rows)),
        )
    return y_TN


@spread_weights.register_fake
def _(
    weight_TK: Tensor | None, index_TK: Tensor, n_rows: int, distinct: int, dtype: torch.dtype
) -> Tensor:
    return torch.empty(index_TK.shape[0], n_rows, dtype=dtype, device=index_TK.device)


@torch.library.custom_op("ffn_nas::spread_gradient", mutates_args=())
def spread_gradient(dy_TN: Tensor, index_TK: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of `spread` in the weights, (T, K) in `dtype`."""
    dy_TN, (n_tokens, n_choices) = dy_TN.contiguous(), index_TK.shape
    d_TK = torch.empty(n_tokens, n_choices, dtype=dtype, device=dy_TN.device)
    if d_TK.numel():
        launch(
            spread_gradient_kernel,
            n_tokens,
            CONFIG,
            *(dy_TN, index_TK.contiguous(), d_TK, n_choices, dy_TN.stride(0)),
            BLOCK_K=min(BLOCK_K, triton.next_power_of_2(n_choices)),
        )
    return d_TK


@spread_gradient.register_fake
def _(dy_TN: Tensor, index_TK: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(index_TK, dtype=dtype)


def _context(ctx: Any, inputs: Any, output: Tensor) -> None:
    weight_TK, index_TK, *_ = inputs
    ctx.dtype = None if weight_TK is None else weight_TK.dtype
    ctx.save_for_backward(index_TK)


def _backward(ctx: Any, dy_TN: Tensor) -> tuple[Tensor | None, ...]:
    (index_TK,) = ctx.saved_tensors
    d_TK = None if ctx.dtype is None else spread_gradient(dy_TN, index_TK, ctx.dtype)
    return d_TK, None, None, None, None


spread_weights.register_autograd(_backward, setup_context=_context)
