"""Attention's heads in one pass over memory, forward and backward: RMS-normed, turned, and queries,
keys and values apart.

N sequences, L tokens of each, H heads, C width of a head, R rows of one kind (N * L * H),
G programs of the backward, each with its own partial sums of dw.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.prepared import prepared
from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

CONFIGS = (Config.of(warps=4), Config.of(warps=8))
PARTIAL_SUMS = 128  # programs a kind
BLOCK = 1024  # elements of a program at least: heads are narrow


@triton.jit
def _row_at(row, n_heads, length, stride_t, stride_an, stride_al):
    """Where a row lies in qkv, and its token's angles, of a row (R,) in 64 bits."""
    token = (row // n_heads).to(tl.int64)
    head = row % n_heads
    return token * stride_t, head, (token // length) * stride_an + (token % length) * stride_al


@triton.jit
def _halves(ptr, half, mask):
    """Both halves of rows, in float32."""
    a = tl.load(ptr, mask=mask, other=0.0).to(tl.float32)
    return a, tl.load(ptr + half, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _inverse_rms(a, b, width, eps):
    """One over the root of rows' mean square, of both halves."""
    return 1.0 / tl.sqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / width + eps)


@triton.jit
def normed_heads_forward_kernel(
    qkv_ptr,
    wq_ptr,
    wk_ptr,
    cos_ptr,
    sin_ptr,
    q_ptr,
    k_ptr,
    n_rows,
    n_heads,
    length,
    width,
    eps,
    stride_t,
    stride_an,
    stride_al,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """BLOCK_R rows of queries (program 0 of the second axis) or keys (1)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    kind = tl.program_id(1).to(tl.int64)
    half = width // 2
    c = tl.arange(0, BLOCK_C)
    mask = (row < n_rows)[:, None] & (c < half)[None, :]
    at, head, angle = _row_at(row, n_heads, length, stride_t, stride_an, stride_al)
    x_ptr = qkv_ptr + (at + (kind * n_heads + head) * width)[:, None] + c[None, :]
    a, b = _halves(x_ptr, half, mask)
    cos = tl.load(cos_ptr + angle[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + angle[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    w_ptr = wq_ptr if kind == 0 else wk_ptr
    w_a, w_b = _halves(w_ptr + c, half, c < half)
    scale = _inverse_rms(a, b, width, eps)
    a = a * scale[:, None] * w_a[None, :]
    b = b * scale[:, None] * w_b[None, :]
    y_ptr = q_ptr if kind == 0 else k_ptr
    y_ptr += (row * width)[:, None] + c[None, :]
    tl.store(y_ptr, (a * cos - b * sin).to(q_ptr.dtype.element_ty), mask=mask)
    tl.store(y_ptr + half, (b * cos + a * sin).to(q_ptr.dtype.element_ty), mask=mask)


@triton.jit
def normed_heads_backward_kernel(
    qkv_ptr,
    wq_ptr,
    wk_ptr,
    cos_ptr,
    sin_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dqkv_ptr,
    dw_ptr,
    n_rows,
    n_heads,
    length,
    width,
    eps,
    stride_t,
    stride_an,
    stride_al,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Every n-th BLOCK_R rows of queries, keys or values (second axis), and their sum of dw."""
    kind = tl.program_id(1).to(tl.int64)
    half, c = width // 2, tl.arange(0, BLOCK_C)
    w_ptr = wq_ptr if kind == 0 else wk_ptr  # values have none
    w_a, w_b = _halves(w_ptr + c, half, c < half)
    dw_a, dw_b = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    for start in range(tl.program_id(0) * BLOCK_R, n_rows, tl.num_programs(0) * BLOCK_R):
        row = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_R)
        mask = (row < n_rows)[:, None] & (c < half)[None, :]
        at, head, angle = _row_at(row, n_heads, length, stride_t, stride_an, stride_al)
        x_at = (at + (kind * n_heads + head) * width)[:, None] + c[None, :]
        y_at = (row * width)[:, None] + c[None, :]
        if kind == 2:
            dv_a, dv_b = _halves(dv_ptr + y_at, half, mask)
            tl.store(dqkv_ptr + x_at, dv_a.to(dqkv_ptr.dtype.element_ty), mask=mask)
            tl.store(dqkv_ptr + x_at + half, dv_b.to(dqkv_ptr.dtype.element_ty), mask=mask)
        else:
            dy_ptr = dq_ptr if kind == 0 else dk_ptr
            dy_a, dy_b = _halves(dy_ptr + y_at, half, mask)
            a, b = _halves(qkv_ptr + x_at, half, mask)
            turn = angle[:, None] + c[None, :]
            cos = tl.load(cos_ptr + turn, mask=mask, other=0.0).to(tl.float32)
            sin = tl.load(sin_ptr + turn, mask=mask, other=0.0).to(tl.float32)
            scale = _inverse_rms(a, b, width, eps)[:, None]
            a, b = a * scale, b * scale
            d_a = dy_a * cos + dy_b * sin
            d_b = dy_b * cos - dy_a * sin
            dw_a += tl.sum(d_a * a, axis=0)
            dw_b += tl.sum(d_b * b, axis=0)
            d_a, d_b = d_a * w_a[None, :], d_b * w_b[None, :]
            mean = ((tl.sum(d_a * a, axis=1) + tl.sum(d_b * b, axis=1)) / width)[:, None]
            dx_a, dx_b = scale * (d_a - a * mean), scale * (d_b - b * mean)
            tl.store(dqkv_ptr + x_at, dx_a.to(dqkv_ptr.dtype.element_ty), mask=mask)
            tl.store(dqkv_ptr + x_at + half, dx_b.to(dqkv_ptr.dtype.element_ty), mask=mask)
    if kind < 2:
        sum_ptr = dw_ptr + (kind * tl.num_programs(0) + tl.program_id(0)) * width + c
        tl.store(sum_ptr, dw_a, mask=c < half)
        tl.store(sum_ptr + half, dw_b, mask=c < half)


def blocks(width: int) -> dict[str, int]:
    """Half a row, and as many rows as one program takes at a time."""
    block = triton.next_power_of_2(width // 2)
    return {"BLOCK_C": block, "BLOCK_R": max(1, BLOCK // (2 * block))}


def normed_heads(
    qkv_NL3HC: Tensor, q_gain_C: Tensor, k_gain_C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (N, H, L, C), as workers.kernels.api.rotary says; computed in float32."""
    gains = prepared(q_gain_C), prepared(k_gain_C)
    q, k, v = _NormedHeads.apply(qkv_NL3HC, *gains, cos, sin, eps)
    return q, k, v


class _NormedHeads(torch.autograd.Function):
    """With gains (G, C) that are all one, in parts: so are their gradients, for somebody else to
    add up."""

    @staticmethod
    def forward(
        ctx: Any, qkv_NL3HC: Tensor, wq: Tensor, wk: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        qkv_NL3HC = qkv_NL3HC.contiguous()
        gains = [w if w.dim() == 1 else w[0] for w in (wq, wk)]
        ctx.save_for_backward(qkv_NL3HC, *gains, cos, sin)
        ctx.eps, ctx.parts = eps, len(wq) if wq.dim() > 1 else 0
        q_NLHC, k_NLHC = normed_heads_forward(qkv_NL3HC, *gains, cos, sin, eps)
        return tuple(x.transpose(1, 2) for x in (q_NLHC, k_NLHC, qkv_NL3HC[:, :, 2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Attention writes them so, and then this copies nothing.
        dq, dk, dv = (x.transpose(1, 2).contiguous() for x in grads)
        dqkv, dw = normed_heads_backward(dq, dk, dv, *ctx.saved_tensors, ctx.eps, ctx.parts)
        return dqkv, *dw.unbind(0), None, None, None


@torch.library.custom_op("ffn_nas::normed_heads", mutates_args=())
def normed_heads_forward(
    qkv_NL3HC: Tensor, wq_C: Tensor, wk_C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Queries and keys, (N, L, H, C) each."""
    N, L, _, H, C = qkv_NL3HC.shape
    q_NLHC, k_NLHC = (qkv_NL3HC.new_empty(N, L, H, C) for _ in range(2))
    block = blocks(C)

    def run(config: Config) -> None:
        launch(
            normed_heads_forward_kernel,
            (triton.cdiv(N * L * H, block["BLOCK_R"]), 2),
            config,
            *(qkv_NL3HC, wq_C.contiguous(), wk_C.contiguous(), *_angles(cos, sin)),
            *(q_NLHC, k_NLHC, N * L * H, H, L, C, eps, 3 * H * C, *_strides(cos)),
            **block,
        )

    if q_NLHC.numel():
        run(choose("normed_heads", CONFIGS, qkv_NL3HC, (H, C), run))
    return q_NLHC, k_NLHC


@torch.library.custom_op("ffn_nas::normed_heads_backward", mutates_args=())
def normed_heads_backward(
    dq_NLHC: Tensor,
    dk_NLHC: Tensor,
    dv_NLHC: Tensor,
    qkv_NL3HC: Tensor,
    wq_C: Tensor,
    wk_C: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    parts: int,
) -> tuple[Tensor, Tensor]:
    """Gradients in qkv and in both gains, (2, C), or (2, G, C) in G `parts`, 0 for their sums,
    which are in float32."""
    N, L, _, H, C = qkv_NL3HC.shape
    dqkv_NL3HC = torch.empty_like(qkv_NL3HC)
    block, n_rows = blocks(C), N * L * H
    programs = parts or min(PARTIAL_SUMS, triton.cdiv(n_rows, block["BLOCK_R"]))
    dw_2GC = qkv_NL3HC.new_empty(2, programs, C, dtype=torch.float32)

    def run(config: Config) -> None:
        launch(
            normed_heads_backward_kernel,
            (programs, 3),
            config,
            *(qkv_NL3HC, wq_C.contiguous(), wk_C.contiguous(), *_angles(cos, sin)),
            *(dq_NLHC, dk_NLHC, dv_NLHC, dqkv_NL3HC, dw_2GC),
            *(n_rows, H, L, C, eps, 3 * H * C, *_strides(cos)),
            **block,
        )

    if n_rows:
        run(choose("normed_heads_backward", CONFIGS, qkv_NL3HC, (H, C), run))
    else:
        dw_2GC.zero_()
    return dqkv_NL3HC, (dw_2GC if parts else dw_2GC.sum(1)).to(wq_C.dtype)


def _angles(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return cos.contiguous(), sin.contiguous()


def _strides(cos: Tensor) -> tuple[int, int]:
    """From a sequence's angles to the next one's, which may be the same, and a token's."""
    n_sequences, _, length, half = cos.shape
    return (0 if n_sequences == 1 else length * half), half


@normed_heads_forward.register_fake
def _(
    qkv_NL3HC: Tensor, wq_C: Tensor, wk_C: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    N, L, _, H, C = qkv_NL3HC.shape
    return qkv_NL3HC.new_empty(N, L, H, C), qkv_NL3HC.new_empty(N, L, H, C)


@normed_heads_backward.register_fake
def _(
    dq_NLHC: Tensor, dk_NLHC: Tensor, dv_NLHC: Tensor, qkv_NL3HC: Tensor, wq_C: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    *_, parts = rest
    shape = (2, parts, *wq_C.shape) if parts else (2, *wq_C.shape)
    return torch.empty_like(qkv_NL3HC), wq_C.new_empty(shape)
