"""Grouped matrix product over rows sorted by expert, with the gather inside: the kernels, and the
product alone as an operator that torch knows.

P rows (token, expert pairs sorted by expert), B experts, I and O inner and outer widths,
M tiles of BLOCK_P rows. `end_B` tells where each expert's rows end: the cumulative sum of its
counts, int64. The last of them is P or less: the host need not know how many rows there are. Rows
beyond it are neither read nor written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.api.flops import count
from workers.kernels.pairs import Loads
from workers.kernels.triton.config import Config, launch, matmul_precision
from workers.kernels.triton.tune import choose

PRODUCT_CONFIGS = (
    Config.of(BLOCK_P=64, BLOCK_O=128, BLOCK_I=64, warps=4, stages=3),
    Config.of(BLOCK_P=64, BLOCK_O=64, BLOCK_I=32, warps=4, stages=3),
    Config.of(BLOCK_P=16, BLOCK_O=64, BLOCK_I=64, warps=4, stages=3),
)
GRADIENT_CONFIGS = (
    Config.of(BLOCK_I=64, BLOCK_O=64, BLOCK_P=32, warps=4, stages=3),
    Config.of(BLOCK_I=128, BLOCK_O=128, BLOCK_P=64, warps=8, stages=2),
    Config.of(BLOCK_I=64, BLOCK_O=128, BLOCK_P=64, warps=4, stages=3),
)
# Experts whose ends a program holds in registers while it looks for its own.
MOST_AT_ONCE = 1024


@triton.jit
def tile_of(tile, end_ptr, n_experts, BLOCK_P: tl.constexpr, BLOCK_B: tl.constexpr):
    """A tile's expert, n_experts for a tile beyond the last, and its first row."""
    expert = tl.zeros((), tl.int32)
    row = tl.zeros((), tl.int64)
    before = tl.zeros((), tl.int64)  # tiles of the experts of former blocks
    for start in range(0, n_experts, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        known = b < n_experts
        end = tl.load(end_ptr + b, mask=known, other=0)
        first = tl.load(end_ptr + b - 1, mask=known & (b > 0), other=0)
        n_tiles = tl.where(known, (end - first + BLOCK_P - 1) // BLOCK_P, 0)
        last = before + tl.cumsum(n_tiles, axis=0)
        passed = known & (last <= tile)
        expert += tl.sum(passed.to(tl.int32), axis=0)
        mine = known & (last > tile) & (last - n_tiles <= tile)
        row += tl.sum(tl.where(mine, first + (tile - (last - n_tiles)) * BLOCK_P, 0), axis=0)
        before += tl.sum(n_tiles, axis=0)
    return expert.to(tl.int64), row.to(tl.int64)


@triton.jit
def matrix_of(expert, own_ptr, shared_ptr, n_own, stride_wb, SHARED: tl.constexpr):
    """Where an expert's matrix begins; the experts from n_own on lie by themselves."""
    if SHARED:  # noqa: SIM102 - known when compiled, and the rest is not
        if expert >= n_own:
            own_ptr = shared_ptr
            expert -= n_own
    return own_ptr + expert.to(tl.int64) * stride_wb


@triton.jit
def product_kernel(
    x_ptr,
    w_ptr,
    shared_ptr,
    y_ptr,
    end_ptr,
    token_ptr,
    n_experts,
    n_own,
    inner,
    outer,
    stride_xp,
    stride_wb,
    stride_wi,
    stride_wo,
    stride_yp,
    GATHER: tl.constexpr,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """A tile of rows of one expert by a block of columns of its matrix."""
    n_outer = tl.cdiv(outer, BLOCK_O)
    expert, first_row = tile_of(tl.program_id(0) // n_outer, end_ptr, n_experts, BLOCK_P, BLOCK_B)
    if expert >= n_experts:
        return
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_P)
    live = row < tl.load(end_ptr + expert)
    source = row
    if GATHER:
        source = tl.load(token_ptr + row, mask=live, other=0).to(tl.int64)
    o = (tl.program_id(0) % n_outer) * BLOCK_O + tl.arange(0, BLOCK_O)
    x_row_ptr = x_ptr + source[:, None] * stride_xp
    of_expert_ptr = matrix_of(expert, w_ptr, shared_ptr, n_own, stride_wb, SHARED)
    w_col_ptr = of_expert_ptr + o.to(tl.int64)[None, :] * stride_wo
    acc = tl.zeros((BLOCK_P, BLOCK_O), dtype=tl.float32)
    for start in range(0, inner, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        x = tl.load(x_row_ptr + i[None, :], mask=live[:, None] & (i < inner)[None, :], other=0.0)
        w = tl.load(
            w_col_ptr + i.to(tl.int64)[:, None] * stride_wi,
            mask=(i < inner)[:, None] & (o < outer)[None, :],
            other=0.0,
        )
        acc = tl.dot(x, w, acc, input_precision=PRECISION)
    y = y_ptr + row[:, None] * stride_yp + o[None, :]
    tl.store(y, acc.to(y_ptr.dtype.element_ty), mask=live[:, None] & (o < outer)[None, :])


@triton.jit
def weight_gradient_kernel(
    x_ptr,
    dy_ptr,
    dw_ptr,
    end_ptr,
    inner,
    outer,
    stride_xp,
    stride_yp,
    stride_wb,
    stride_wi,
    stride_wo,
    PRECISION: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """A block of one expert's gradient, summed over the expert's rows."""
    n_inner, n_outer = tl.cdiv(inner, BLOCK_I), tl.cdiv(outer, BLOCK_O)
    tile = tl.program_id(0)
    expert = (tile // (n_inner * n_outer)).to(tl.int64)
    i = (tile // n_outer % n_inner) * BLOCK_I + tl.arange(0, BLOCK_I)
    o = (tile % n_outer) * BLOCK_O + tl.arange(0, BLOCK_O)
    first = tl.load(end_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(end_ptr + expert)
    acc = tl.zeros((BLOCK_I, BLOCK_O), dtype=tl.float32)
    for start in range(first, end, BLOCK_P):
        row = (start + tl.arange(0, BLOCK_P)).to(tl.int64)
        live = row < end
        xt = tl.load(
            x_ptr + row[None, :] * stride_xp + i[:, None],
            mask=(i < inner)[:, None] & live[None, :],
            other=0.0,
        )
        dy = tl.load(
            dy_ptr + row[:, None] * stride_yp + o[None, :],
            mask=live[:, None] & (o < outer)[None, :],
            other=0.0,
        )
        acc = tl.dot(xt, dy, acc, input_precision=PRECISION)
    i64, o64 = i.to(tl.int64), o.to(tl.int64)
    dw = dw_ptr + expert * stride_wb + i64[:, None] * stride_wi + o64[None, :] * stride_wo
    mask = (i < inner)[:, None] & (o < outer)[None, :]
    tl.store(dw, acc.to(dw_ptr.dtype.element_ty), mask=mask)


def grouped_product(
    x_RI: Tensor,
    w_BIO: Tensor,
    end_B: Tensor,
    *,
    token_P: Tensor | None = None,
    shared_AIO: Tensor | None = None,
) -> Tensor:
    """y[p] = x[token p] @ w[expert of p], shape (P, O).

    The grid is a bound that needs no answer from the device: P / BLOCK_P tiles, and one more an
    expert. Each finds its expert and rows by `end_B`; those beyond the last leave at once. Left
    out, the token is p itself (R = P rows of x). No two programs write one row, so equal inputs
    give equal bits. w_BIO may have any strides. Accumulates in float32. FLOPs 2 P I O.

    shared_AIO: the matrices of A experts more, the last, in the same layout.
    """
    n_rows = x_RI.shape[0] if token_P is None else token_P.numel()
    n_own, inner, outer = w_BIO.shape
    n_experts = n_own if shared_AIO is None else n_own + len(shared_AIO)
    x_RI = x_RI if x_RI.stride(1) == 1 else x_RI.contiguous()
    y_PO = x_RI.new_empty(n_rows, outer)
    if y_PO.numel() == 0:
        return y_PO

    def run(config: Config) -> None:
        tiles = triton.cdiv(n_rows, config["BLOCK_P"]) + n_experts
        launch(
            product_kernel,
            tiles * triton.cdiv(outer, config["BLOCK_O"]),
            config,
            *(x_RI, w_BIO, shared_AIO, y_PO, end_B, token_P, n_experts, n_own, inner, outer),
            *(x_RI.stride(0), *w_BIO.stride(), y_PO.stride(0)),
            GATHER=token_P is not None,
            SHARED=shared_AIO is not None,
            PRECISION=matmul_precision(x_RI.dtype),
            BLOCK_B=min(MOST_AT_ONCE, triton.next_power_of_2(n_experts)),
        )

    run(choose("grouped_product", PRODUCT_CONFIGS, x_RI, (n_experts, inner, outer), run))
    return y_PO


def grouped_weight_gradient(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    """Gradient of `grouped_product` in w, (B, I, O) in w's own layout; 0 for an unread expert."""
    n_experts, inner, outer = w_BIO.shape
    x_PI = x_PI if x_PI.stride(1) == 1 else x_PI.contiguous()
    dy_PO = dy_PO if dy_PO.stride(1) == 1 else dy_PO.contiguous()
    dw_BIO = torch.empty_like(w_BIO)

    def run(config: Config) -> None:
        tiles = triton.cdiv(inner, config["BLOCK_I"]) * triton.cdiv(outer, config["BLOCK_O"])
        launch(
            weight_gradient_kernel,
            n_experts * tiles,
            config,
            *(x_PI, dy_PO, dw_BIO, end_B, inner, outer),
            *(x_PI.stride(0), dy_PO.stride(0), *dw_BIO.stride()),
            PRECISION=matmul_precision(x_PI.dtype),
        )

    widths = (n_experts, inner, outer)
    run(choose("grouped_weight_gradient", GRADIENT_CONFIGS, x_PI, widths, run))
    return dw_BIO


def grouped_mm(x_PI: Tensor, w_BIO: Tensor, loads: Loads) -> Tensor:
    """(P, O), as workers.kernels.api.grouped says."""
    end_B = loads.end_B(x_PI.device)
    y_PO: Tensor = product_of_experts(x_PI, w_BIO, end_B)
    return y_PO


@torch.library.custom_op("ffn_nas::grouped_mm", mutates_args=())
def product_of_experts(x_PI: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    """(P, O): y[p] = x[p] @ w[expert of p]."""
    return grouped_product(x_PI, w_BIO, end_B)


@product_of_experts.register_fake
def _(x_PI: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    return x_PI.new_empty(x_PI.shape[0], w_BIO.shape[2])


@torch.library.custom_op("ffn_nas::grouped_mm_weight_gradient", mutates_args=())
def grouped_mm_weight_gradient(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    """(B, I, O), in w's layout."""
    return grouped_weight_gradient(x_PI, dy_PO, w_BIO, end_B)


@grouped_mm_weight_gradient.register_fake
def _(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    return torch.empty_like(w_BIO)


def _context(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy_PO: Tensor) -> tuple[Tensor | None, ...]:
    x_PI, w_BIO, end_B = ctx.saved_tensors
    dx_PI = dw_BIO = None
    if ctx.needs_input_grad[0]:
        dx_PI = product_of_experts(dy_PO, w_BIO.transpose(1, 2), end_B)
    if ctx.needs_input_grad[1]:
        dw_BIO = grouped_mm_weight_gradient(x_PI, dy_PO, w_BIO, end_B)
    return dx_PI, dw_BIO, None


product_of_experts.register_autograd(_backward, setup_context=_context)
count(torch.ops.ffn_nas.grouped_mm)
count(torch.ops.ffn_nas.grouped_mm_weight_gradient)
