"""Experts with gates on their outputs: what lies between their products.

An expert's output is R = h V, and its gate r = sigmoid(o . R). With u = V o that is sigmoid(h . u):
hidden units alone open it, and no expert's output is ever made. Backward, with p = dy V^T,

    dr = w h . p    c = dr r (1 - r)    dh = w r p + c u    dw = r h . p
    du = sum over tokens of c h    dV = (w r h)^T dy + du o^T    do = du V

T tokens, D model width, B experts, G units of an expert, P rows: (token, expert) pairs sorted by
expert, or tokens that all experts read; X columns: G, or B * G where all read; M parts of sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.gated import act_and_slope
from workers.kernels.triton.grouped import MOST_AT_ONCE, tile_of
from workers.kernels.triton.tune import choose

CONFIGS = (Config.of(warps=4), Config.of(warps=8))
WIDE_CONFIGS = (Config.of(warps=16),)  # of experts of more than BLOCK units
# Elements and rows of a program at a time: whole rows of an expert's units.
BLOCK, MOST_ROWS = 2048, 64
PROGRAMS = 1024  # of a backward pass: enough to fill a GPU, few enough that their sums are cheap


@triton.jit
def rows_of(
    end_ptr, n_rows, n_experts, ROUTED: tl.constexpr, RUN: tl.constexpr, BLOCK_B: tl.constexpr
):
    """A program's expert, n_experts for one beyond the last; its first row, and where they end; and
    which columns are the expert's."""
    if ROUTED:
        expert, first = tile_of(tl.program_id(0), end_ptr, n_experts, RUN, BLOCK_B)
        end = tl.load(end_ptr + expert, mask=expert < n_experts, other=0)
        part = tl.zeros((), tl.int64)
    else:
        expert = tl.program_id(1).to(tl.int64)
        first = tl.program_id(0).to(tl.int64) * RUN
        end = tl.cast(n_rows, tl.int64)
        part = expert
    return expert, first, tl.minimum(first + RUN, end), part


@triton.jit
def hidden_of(key_ptr, gate_ptr, at, mask, ACTIVATION: tl.constexpr, GATED: tl.constexpr):
    """Hidden units, and their slopes in the pre-activations by gate and by key."""
    key = tl.load(key_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if GATED:
        gate = tl.load(gate_ptr + at, mask=mask, other=0.0).to(tl.float32)
        act, slope = act_and_slope(gate, ACTIVATION)
        h, by_gate, by_key = act * key, slope * key, act
    else:
        h, by_key = act_and_slope(key, ACTIVATION)
        by_gate = by_key
    return h, by_gate, by_key


@triton.jit
def output_gates_kernel(
    key_ptr,
    gate_ptr,
    u_ptr,
    weight_ptr,
    h_ptr,
    scale_ptr,
    end_ptr,
    n_rows,
    n_experts,
    width,
    stride_p,
    stride_h,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    WEIGHT: tl.constexpr,
    ROUTED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """w r of BLOCK_P rows of an expert; where it is not routed, w r h."""
    expert, first, end, part = rows_of(end_ptr, n_rows, n_experts, ROUTED, BLOCK_P, BLOCK_B)
    if expert >= n_experts:
        return
    row = first.to(tl.int64) + tl.arange(0, BLOCK_P)
    live = row < end
    g = tl.arange(0, BLOCK_G)
    mask = live[:, None] & (g < width)[None, :]
    column = (part * width + g)[None, :]
    at = row[:, None] * stride_p + column
    h, _, _ = hidden_of(key_ptr, gate_ptr, at, mask, ACTIVATION, GATED)
    u = tl.load(u_ptr + expert * width + g, mask=g < width, other=0.0)
    scale = tl.sigmoid(tl.sum(h * u[None, :], axis=1))
    if WEIGHT:
        at = row if ROUTED else row * n_experts + part
        scale *= tl.load(weight_ptr + at, mask=live, other=0.0).to(tl.float32)
    if ROUTED:
        tl.store(scale_ptr + row, scale, mask=live)
    else:
        h *= scale[:, None]
        at = row[:, None] * stride_h + column
        tl.store(h_ptr + at, h.to(h_ptr.dtype.element_ty), mask=mask)


@triton.jit
def output_gate_gradients_kernel(
    key_ptr,
    gate_ptr,
    p_ptr,
    u_ptr,
    weight_ptr,
    end_ptr,
    h_ptr,
    dkey_ptr,
    dgate_ptr,
    dweight_ptr,
    du_ptr,
    n_rows,
    n_experts,
    width,
    stride_p,
    stride_h,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    WEIGHT: tl.constexpr,
    ROUTED: tl.constexpr,
    RUN: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """RUN rows of an expert: w r h, gradients of pre-activations and of w, and their part of du."""
    expert, first, end, part = rows_of(end_ptr, n_rows, n_experts, ROUTED, RUN, BLOCK_B)
    if expert >= n_experts:
        return
    g = tl.arange(0, BLOCK_G)
    u = tl.load(u_ptr + expert * width + g, mask=g < width, other=0.0)
    column = (part * width + g)[None, :]
    du = tl.zeros((BLOCK_G,), tl.float32)
    for start in range(first, end, BLOCK_P):
        row = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_P)
        live = row < end
        mask = live[:, None] & (g < width)[None, :]
        at, h_at = row[:, None] * stride_p + column, row[:, None] * stride_h + column
        p = tl.load(p_ptr + h_at, mask=mask, other=0.0).to(tl.float32)
        h, by_gate, by_key = hidden_of(key_ptr, gate_ptr, at, mask, ACTIVATION, GATED)
        r, dr = tl.sigmoid(tl.sum(h * u[None, :], axis=1)), tl.sum(h * p, axis=1)
        scale = r
        if WEIGHT:
            w_at = row if ROUTED else row * n_experts + part
            dw = (dr * r).to(dweight_ptr.dtype.element_ty)
            tl.store(dweight_ptr + w_at, dw, mask=live)
            w = tl.load(weight_ptr + w_at, mask=live, other=0.0).to(tl.float32)
            scale, dr = w * r, w * dr
        c = dr * r * (1.0 - r)
        du += tl.sum(c[:, None] * h, axis=0)
        dh = scale[:, None] * p + c[:, None] * u[None, :]
        h *= scale[:, None]
        tl.store(h_ptr + h_at, h.to(h_ptr.dtype.element_ty), mask=mask)
        tl.store(dkey_ptr + at, (dh * by_key).to(dkey_ptr.dtype.element_ty), mask=mask)
        if GATED:
            tl.store(dgate_ptr + at, (dh * by_gate).to(dgate_ptr.dtype.element_ty), mask=mask)
    # An expert's parts lie one after the other.
    tile = tl.program_id(0) if ROUTED else expert * tl.num_programs(0) + tl.program_id(0)
    tl.store(du_ptr + tl.cast(tile, tl.int64) * width + g, du, mask=g < width)


class Units(NamedTuple):
    """What lies between the products.

    key_PX, gate_PX: pre-activations, (P, X) each, of one stride and with columns side by side;
        gates may be None.
    u_BG: V o, float32.
    weight: of the rows: (P,) where they are routed, else (P, B); None for ones.
    end_B: where each expert's rows end, where they are routed, else None.
    """

    key_PX: Tensor
    gate_PX: Tensor | None
    u_BG: Tensor
    weight: Tensor | None
    end_B: Tensor | None

    @property
    def run(self) -> int:
        """How many rows a program of the backward pass takes: a power of two."""
        columns = 1 if self.end_B is not None else len(self.u_BG)
        rows = triton.next_power_of_2(max(1, triton.cdiv(len(self.key_PX) * columns, PROGRAMS)))
        return max(self.blocks["BLOCK_P"], int(rows))

    @property
    def blocks(self) -> dict[str, int]:
        """Whole rows of an expert's units, and as many of them as a program takes at a time."""
        n_experts, width = self.u_BG.shape
        block_b = min(MOST_AT_ONCE, triton.next_power_of_2(n_experts))
        block = triton.next_power_of_2(width)
        rows = max(1, min(MOST_ROWS, BLOCK // block))
        return {"BLOCK_B": block_b, "BLOCK_G": block, "BLOCK_P": rows}

    @property
    def configs(self) -> tuple[Config, ...]:
        """Of the kernels that take whole rows of an expert's units."""
        return WIDE_CONFIGS if self.u_BG.shape[1] > BLOCK else CONFIGS

    @property
    def flags(self) -> dict[str, Any]:
        """What a kernel is specialised by."""
        gated, weighted = self.gate_PX is not None, self.weight is not None
        routed = self.end_B is not None
        return {"GATED": gated, "WEIGHT": weighted, "ROUTED": routed, **self.blocks}

    def grid(self, rows: int) -> tuple[int, int]:
        """Programs of so many rows: of each expert, or a bound of all."""
        tiles, n_experts = triton.cdiv(len(self.key_PX), rows), len(self.u_BG)
        return (tiles, n_experts) if self.end_B is None else (tiles + n_experts, 1)


def output_gates(units: Units, activation: str) -> Tensor:
    """w r h (P, X) in the pre-activations' dtype; where rows are routed, w r (P,) in float32."""
    key_PX, gate_PX, u_BG, weight, end_B = units
    n_rows, (n_experts, width) = len(key_PX), u_BG.shape
    routed = end_B is not None
    scale_P = u_BG.new_empty(n_rows) if routed else None
    h_PX = None if routed else key_PX.new_empty(key_PX.shape)
    made = scale_P if h_PX is None else h_PX
    assert made is not None
    if n_rows == 0:
        return made

    def run(config: Config) -> None:
        launch(
            output_gates_kernel,
            units.grid(units.blocks["BLOCK_P"]),
            config,
            *(key_PX, gate_PX, u_BG, weight, h_PX, scale_P, end_B, n_rows, n_experts, width),
            *(key_PX.stride(0), key_PX.shape[1]),
            ACTIVATION=activation,
            **units.flags,
        )

    run(choose("output_gates", units.configs, key_PX, (n_experts, width, routed), run))
    return made


class Gradients(NamedTuple):
    """What the backward pass makes of the units.

    h_PX: w r h.
    dkey_PX, dgate_PX: gradients of the pre-activations; as they lay.
    dweight: of the weight, 0 for rows that are none.
    du_MG: parts of the gradient of u, float32: as `output_vectors_gradient` takes them.
    """

    h_PX: Tensor
    dkey_PX: Tensor
    dgate_PX: Tensor | None
    dweight: Tensor | None
    du_MG: Tensor


def output_gate_gradients(
    units: Units, p_PX: Tensor, room: tuple[Tensor, Tensor | None], activation: str
) -> Gradients:
    """For the gradient p = dy V^T of what is weighed, w r h.

    room: for the gradients of the pre-activations, of their shapes and strides.
    """
    key_PX, gate_PX, u_BG, weight, end_B = units
    n_rows, (n_experts, width) = len(key_PX), u_BG.shape
    tiles, columns = grid = units.grid(units.run)
    dweight = None
    if weight is not None:  # rows that are no pairs have a gradient too, for somebody may add it up
        dweight = torch.empty_like(weight) if end_B is None else torch.zeros_like(weight)
    made = Gradients(
        p_PX.new_empty(p_PX.shape), *room, dweight, u_BG.new_empty(tiles * columns, width)
    )
    if n_rows == 0:
        return made

    def run(config: Config) -> None:
        launch(
            output_gate_gradients_kernel,
            grid,
            config,
            *(key_PX, gate_PX, p_PX, u_BG, weight, end_B, *made, n_rows, n_experts, width),
            *(key_PX.stride(0), key_PX.shape[1]),
            ACTIVATION=activation,
            RUN=units.run,
            **units.flags,
        )

    widths = (n_experts, width, end_B is not None)
    run(choose("output_gate_gradients", units.configs, key_PX, widths, run))
    return made
