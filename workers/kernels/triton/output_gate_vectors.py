"""What gates on experts' outputs make of parameters alone: u = V o, and the gradients that come
back through it. See workers.kernels.triton.output_gate_units.

D model width, B experts, G units of an expert, U = B * G units of all, M parts of sums over rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.grouped import MOST_AT_ONCE
from workers.kernels.triton.tune import choose

CONFIGS = (
    Config.of(BLOCK_G=4, BLOCK_D=256, warps=4),
    Config.of(BLOCK_G=16, BLOCK_D=64, warps=4),
)
# One alone: what adds to what it is given cannot be timed by running it again.
GRADIENT_CONFIGS = (Config.of(BLOCK_M=32, BLOCK_G=64, BLOCK_D=64, warps=4),)


@triton.jit
def output_vectors_kernel(
    values_ptr,
    o_ptr,
    keys_ptr,
    gates_ptr,
    u_ptr,
    both_ptr,
    n_units,
    width,
    inner,
    stride_w,
    COPY: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """u of BLOCK_G of all units, and a copy of their keys and gates, where all keys come first."""
    unit = tl.program_id(0).to(tl.int64) * BLOCK_G + tl.arange(0, BLOCK_G)
    live = unit < n_units
    expert, copied = unit // width, unit + n_units
    acc = tl.zeros((BLOCK_G, BLOCK_D), dtype=tl.float32)
    for start in range(0, inner, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        at, mask = unit[:, None] * stride_w + d[None, :], live[:, None] & (d < inner)[None, :]
        v = tl.load(values_ptr + at, mask=mask, other=0.0).to(tl.float32)
        o = tl.load(o_ptr + expert[:, None] * inner + d[None, :], mask=mask, other=0.0)
        acc += v * o.to(tl.float32)
        if COPY:
            key = tl.load(keys_ptr + at, mask=mask, other=0.0)
            gate = tl.load(gates_ptr + at, mask=mask, other=0.0)
            tl.store(both_ptr + at, key, mask=mask)
            tl.store(both_ptr + copied[:, None] * stride_w + d[None, :], gate, mask=mask)
    tl.store(u_ptr + unit, tl.sum(acc, axis=1), mask=live)


@triton.jit
def parts_of(expert, end_ptr, n_experts, RUN: tl.constexpr, BLOCK_B: tl.constexpr):
    """The first of an expert's parts, a part for each RUN of its rows, and the next one's first."""
    first = tl.zeros((), tl.int64)
    own = tl.zeros((), tl.int64)
    for start in range(0, n_experts, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        known = b < n_experts
        end = tl.load(end_ptr + b, mask=known, other=0)
        begin = tl.load(end_ptr + b - 1, mask=known & (b > 0), other=0)
        n_parts = tl.where(known, (end - begin + RUN - 1) // RUN, 0)
        first += tl.sum(tl.where(b < expert, n_parts, 0), axis=0)
        own += tl.sum(tl.where(b == expert, n_parts, 0), axis=0)
    return first, first + own


@triton.jit
def sum_of_parts(du_ptr, first, last, g, width, BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr):
    """du of some units: the sum of their parts, in order."""
    acc = tl.zeros((BLOCK_M, BLOCK_G), dtype=tl.float32)
    for start in range(first, last, BLOCK_M):
        m = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_M)
        mask = (m < last)[:, None] & (g < width)[None, :]
        acc += tl.load(du_ptr + m[:, None] * width + g[None, :], mask=mask, other=0.0)
    return tl.sum(acc, axis=0)


@triton.jit
def output_vectors_gradient_kernel(
    values_ptr,
    o_ptr,
    du_ptr,
    dvalues_ptr,
    do_ptr,
    end_ptr,
    n_parts,
    n_experts,
    width,
    inner,
    stride_w,
    ROUTED: tl.constexpr,
    RUN: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """A block of an expert's dV, to which du o^T is added; or of its do = du V, the last programs
    of the second axis."""
    n_d = tl.cdiv(inner, BLOCK_D)
    expert = (tl.program_id(0) // n_d).to(tl.int64)
    d = (tl.program_id(0) % n_d) * BLOCK_D + tl.arange(0, BLOCK_D)
    if ROUTED:
        first, last = parts_of(expert, end_ptr, n_experts, RUN, BLOCK_B)
    else:
        first, last = expert * n_parts, expert * n_parts + n_parts
    g = tl.arange(0, BLOCK_G)
    if tl.program_id(1) < tl.num_programs(1) - 1:
        g += tl.program_id(1) * BLOCK_G
        du = sum_of_parts(du_ptr, first, last, g, width, BLOCK_M, BLOCK_G)
        o = tl.load(o_ptr + expert * inner + d, mask=d < inner, other=0.0).to(tl.float32)
        at = (expert * width + g)[:, None] * stride_w + d[None, :]
        mask = (g < width)[:, None] & (d < inner)[None, :]
        dv = tl.load(dvalues_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dv += du[:, None] * o[None, :]
        tl.store(dvalues_ptr + at, dv.to(dvalues_ptr.dtype.element_ty), mask=mask)
    else:
        acc = tl.zeros((BLOCK_G, BLOCK_D), dtype=tl.float32)
        for start in range(0, width, BLOCK_G):
            du = sum_of_parts(du_ptr, first, last, start + g, width, BLOCK_M, BLOCK_G)
            at = (expert * width + start + g)[:, None] * stride_w + d[None, :]
            mask = (start + g < width)[:, None] & (d < inner)[None, :]
            v = tl.load(values_ptr + at, mask=mask, other=0.0).to(tl.float32)
            acc += du[:, None] * v
        do = tl.sum(acc, axis=0).to(do_ptr.dtype.element_ty)
        tl.store(do_ptr + expert * inner + d, do, mask=d < inner)


def output_vectors(
    values_BGD: Tensor, output_gate_BD: Tensor, keys_BGD: Tensor, gates_BGD: Tensor | None
) -> tuple[Tensor, Tensor]:
    """u (B, G) in float32, and keys and gates in one matrix, (2 U, D), for products of both; (0,)
    without gates. All contiguous."""
    n_experts, width, inner = values_BGD.shape
    n_units = n_experts * width
    u_BG = values_BGD.new_empty(n_experts, width, dtype=torch.float32)
    both = values_BGD.new_empty(*((0,) if gates_BGD is None else (2 * n_units, inner)))

    def run(config: Config) -> None:
        launch(
            output_vectors_kernel,
            triton.cdiv(n_units, config["BLOCK_G"]),
            config,
            *(values_BGD, output_gate_BD, keys_BGD, gates_BGD, u_BG, both),
            *(n_units, width, inner, inner),
            COPY=gates_BGD is not None,
        )

    run(choose("output_vectors", CONFIGS, values_BGD, (n_experts, width, inner), run))
    return u_BG, both


def output_vectors_gradient(
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    du_MG: Tensor,
    dvalues_BGD: Tensor,
    end_B: Tensor | None,
    run: int,
) -> Tensor:
    """do (B, D), in o's dtype; and du o^T is added to `dvalues_BGD`.

    du_MG: the sums in parts: as many of each expert in order, or those of `run` rows where `end_B`
        says where the experts' rows end.
    """
    (config,) = GRADIENT_CONFIGS
    n_experts, width, inner = values_BGD.shape
    do_BD = torch.empty_like(output_gate_BD)
    launch(
        output_vectors_gradient_kernel,
        (
            n_experts * triton.cdiv(inner, config["BLOCK_D"]),
            triton.cdiv(width, config["BLOCK_G"]) + 1,
        ),
        config,
        *(values_BGD, output_gate_BD, du_MG, dvalues_BGD, do_BD, end_B),
        *(len(du_MG) // n_experts, n_experts, width, inner, inner),
        ROUTED=end_B is not None,
        RUN=run,
        BLOCK_B=min(MOST_AT_ONCE, triton.next_power_of_2(n_experts)),
    )
    return do_BD
