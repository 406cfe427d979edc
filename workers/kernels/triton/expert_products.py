"""The products of routed experts that share what they read: hidden units by keys and gates, the
gradient in the input by both, and the gradients of all matrices.

P rows (token, expert pairs sorted by expert), B experts, G units of an expert, D model width.
`end_B` is as in workers.kernels.triton.grouped; rows beyond the last are neither read nor written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch, matmul_precision
from workers.kernels.triton.expert_matrices import Matrices
from workers.kernels.triton.gated import act_and_slope
from workers.kernels.triton.grouped import MOST_AT_ONCE, matrix_of, tile_of
from workers.kernels.triton.tune import choose

HIDDEN_CONFIGS = (
    Config.of(BLOCK_P=64, BLOCK_G=64, BLOCK_D=64, warps=4, stages=3),
    Config.of(BLOCK_P=128, BLOCK_G=64, BLOCK_D=64, warps=8, stages=3),
    Config.of(BLOCK_P=16, BLOCK_G=64, BLOCK_D=64, warps=4, stages=3),
)
INPUT_CONFIGS = (
    Config.of(BLOCK_P=64, BLOCK_D=128, BLOCK_G=64, warps=4, stages=3, nvidia=True),
    Config.of(BLOCK_P=64, BLOCK_D=64, BLOCK_G=64, warps=4, stages=3),
    Config.of(BLOCK_P=16, BLOCK_D=64, BLOCK_G=64, warps=4, stages=3),
)
GRADIENT_CONFIGS = (
    Config.of(BLOCK_G=64, BLOCK_D=64, BLOCK_P=64, warps=4, stages=3),
    Config.of(BLOCK_G=128, BLOCK_D=128, BLOCK_P=64, warps=8, stages=2),
    Config.of(BLOCK_G=64, BLOCK_D=128, BLOCK_P=64, warps=4, stages=3),
)


@triton.jit
def _keep_and_hide(
    key, gate, key_ptr, gate_ptr, h_ptr, at, mask, ACTIVATION: tl.constexpr, GATED: tl.constexpr
):
    """Store pre-activations, and what they make as they are kept: rounded, so that backward makes
    the same of them."""
    key = key.to(key_ptr.dtype.element_ty)
    tl.store(key_ptr, key, mask=mask)
    if GATED:
        gate = gate.to(key_ptr.dtype.element_ty)
        tl.store(gate_ptr + at, gate, mask=mask)
        act, _ = act_and_slope(gate.to(tl.float32), ACTIVATION)
        h = act * key.to(tl.float32)
    else:
        h, _ = act_and_slope(key.to(tl.float32), ACTIVATION)
    tl.store(h_ptr, h.to(h_ptr.dtype.element_ty), mask=mask)


@triton.jit
def hidden_kernel(
    x_ptr,
    keys_ptr,
    gates_ptr,
    shared_keys_ptr,
    shared_gates_ptr,
    key_ptr,
    gate_ptr,
    h_ptr,
    end_ptr,
    token_ptr,
    n_experts,
    n_own,
    inner,
    width,
    stride_xt,
    stride_wb,
    stride_wg,
    stride_pg,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """A tile of rows of one expert by a block of its units: pre-activations, and what they make."""
    n_blocks = tl.cdiv(width, BLOCK_G)
    expert, first_row = tile_of(tl.program_id(0) // n_blocks, end_ptr, n_experts, BLOCK_P, BLOCK_B)
    if expert >= n_experts:
        return
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_P)
    live = row < tl.load(end_ptr + expert)
    token = tl.load(token_ptr + row, mask=live, other=0).to(tl.int64)
    g = (tl.program_id(0) % n_blocks) * BLOCK_G + tl.arange(0, BLOCK_G)
    x_row_ptr = x_ptr + token[:, None] * stride_xt
    keys_ptr = matrix_of(expert, keys_ptr, shared_keys_ptr, n_own, stride_wb, SHARED)
    if GATED:
        gates_ptr = matrix_of(expert, gates_ptr, shared_gates_ptr, n_own, stride_wb, SHARED)
    unit = g.to(tl.int64) * stride_wg
    key = tl.zeros((BLOCK_P, BLOCK_G), dtype=tl.float32)
    gate = tl.zeros((BLOCK_P, BLOCK_G), dtype=tl.float32)
    for start in range(0, inner, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x = tl.load(x_row_ptr + d[None, :], mask=live[:, None] & (d < inner)[None, :], other=0.0)
        at, mask = unit[None, :] + d[:, None], (d < inner)[:, None] & (g < width)[None, :]
        w = tl.load(keys_ptr + at, mask=mask, other=0.0)
        key = tl.dot(x, w, key, input_precision=PRECISION)
        if GATED:
            w = tl.load(gates_ptr + at, mask=mask, other=0.0)
            gate = tl.dot(x, w, gate, input_precision=PRECISION)
    at = row[:, None] * stride_pg + g[None, :]
    mask = live[:, None] & (g < width)[None, :]
    _keep_and_hide(key, gate, key_ptr + at, gate_ptr, h_ptr + at, at, mask, ACTIVATION, GATED)


@triton.jit
def input_gradient_kernel(
    dkey_ptr,
    dgate_ptr,
    keys_ptr,
    gates_ptr,
    shared_keys_ptr,
    shared_gates_ptr,
    dx_ptr,
    end_ptr,
    n_experts,
    n_own,
    inner,
    width,
    stride_pg,
    stride_wb,
    stride_wg,
    stride_pd,
    GATED: tl.constexpr,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """A tile of rows of one expert by a block of columns: what keys and gates make of theirs."""
    n_blocks = tl.cdiv(inner, BLOCK_D)
    expert, first_row = tile_of(tl.program_id(0) // n_blocks, end_ptr, n_experts, BLOCK_P, BLOCK_B)
    if expert >= n_experts:
        return
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_P)
    live = row < tl.load(end_ptr + expert)
    d = (tl.program_id(0) % n_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    keys_ptr = matrix_of(expert, keys_ptr, shared_keys_ptr, n_own, stride_wb, SHARED)
    if GATED:
        gates_ptr = matrix_of(expert, gates_ptr, shared_gates_ptr, n_own, stride_wb, SHARED)
    acc = tl.zeros((BLOCK_P, BLOCK_D), dtype=tl.float32)
    for start in range(0, width, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        at, mask = row[:, None] * stride_pg + g[None, :], live[:, None] & (g < width)[None, :]
        w_at = g.to(tl.int64)[:, None] * stride_wg + d[None, :]
        w_mask = (g < width)[:, None] & (d < inner)[None, :]
        dy = tl.load(dkey_ptr + at, mask=mask, other=0.0)
        w = tl.load(keys_ptr + w_at, mask=w_mask, other=0.0)
        acc = tl.dot(dy, w, acc, input_precision=PRECISION)
        if GATED:
            dy = tl.load(dgate_ptr + at, mask=mask, other=0.0)
            w = tl.load(gates_ptr + w_at, mask=w_mask, other=0.0)
            acc = tl.dot(dy, w, acc, input_precision=PRECISION)
    at = dx_ptr + row[:, None] * stride_pd + d[None, :]
    tl.store(at, acc.to(dx_ptr.dtype.element_ty), mask=live[:, None] & (d < inner)[None, :])


@triton.jit
def matrix_gradients_kernel(
    h_ptr,
    dkey_ptr,
    dgate_ptr,
    x_ptr,
    dy_ptr,
    dvalues_ptr,
    dkeys_ptr,
    dgates_ptr,
    shared_dvalues_ptr,
    shared_dkeys_ptr,
    shared_dgates_ptr,
    end_ptr,
    token_ptr,
    n_own,
    inner,
    width,
    stride_pg,
    stride_xt,
    stride_yt,
    stride_wb,
    stride_wg,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """A block of one expert's gradient in its values, keys or gates, summed over its rows."""
    n_g, n_d = tl.cdiv(width, BLOCK_G), tl.cdiv(inner, BLOCK_D)
    tile, which = tl.program_id(0), tl.program_id(1)
    expert = (tile // (n_g * n_d)).to(tl.int64)
    g = (tile // n_d % n_g) * BLOCK_G + tl.arange(0, BLOCK_G)
    d = (tile % n_d) * BLOCK_D + tl.arange(0, BLOCK_D)
    # Of each matrix: a row's numbers by unit, those by column, and where their product goes.
    left_ptr, right_ptr, stride_t = h_ptr, dy_ptr, stride_yt
    dw_ptr, shared_ptr = dvalues_ptr, shared_dvalues_ptr
    if which > 0:
        left_ptr, right_ptr, stride_t = dkey_ptr, x_ptr, stride_xt
        dw_ptr, shared_ptr = dkeys_ptr, shared_dkeys_ptr
    if which > 1:
        left_ptr, dw_ptr, shared_ptr = dgate_ptr, dgates_ptr, shared_dgates_ptr
    first = tl.load(end_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(end_ptr + expert)
    acc = tl.zeros((BLOCK_G, BLOCK_D), dtype=tl.float32)
    for start in range(first, end, BLOCK_P):
        row = (start + tl.arange(0, BLOCK_P)).to(tl.int64)
        live = row < end
        token = tl.load(token_ptr + row, mask=live, other=0).to(tl.int64)
        left = left_ptr + row[None, :] * stride_pg + g[:, None]
        left = tl.load(left, mask=(g < width)[:, None] & live[None, :], other=0.0)
        right = right_ptr + token[:, None] * stride_t + d[None, :]
        right = tl.load(right, mask=live[:, None] & (d < inner)[None, :], other=0.0)
        acc = tl.dot(left, right, acc, input_precision=PRECISION)
    dw_ptr = matrix_of(expert, dw_ptr, shared_ptr, n_own, stride_wb, SHARED)
    at = g.to(tl.int64)[:, None] * stride_wg + d[None, :]
    mask = (g < width)[:, None] & (d < inner)[None, :]
    tl.store(dw_ptr + at, acc.to(dw_ptr.dtype.element_ty), mask=mask)


def hidden_units(
    x_TD: Tensor, matrices: Matrices, token_P: Tensor, end_B: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The pre-activations by key and by gate, (P, G) each, (0,) without gates; and act(key), or
    act(gate) * key, (P, G)."""
    n_experts, _, _, width = matrices.sizes
    n_pairs = token_P.numel()
    key_PG = x_TD.new_empty(n_pairs, width)
    gate_PG = key_PG.new_empty(0) if matrices.gates_BGD is None else torch.empty_like(key_PG)
    h_PG = torch.empty_like(key_PG)
    if n_pairs == 0:
        return key_PG, gate_PG, h_PG

    def run(config: Config) -> None:
        tiles = triton.cdiv(n_pairs, config["BLOCK_P"]) + n_experts
        launch(
            hidden_kernel,
            tiles * triton.cdiv(width, config["BLOCK_G"]),
            config,
            x_TD,
            *(*matrices.by_key_and_gate, key_PG, gate_PG, h_PG, end_B, token_P),
            *(*matrices.sizes, x_TD.stride(0), *matrices.keys_BGD.stride()[:2], key_PG.stride(0)),
            ACTIVATION=activation,
            BLOCK_B=min(MOST_AT_ONCE, triton.next_power_of_2(n_experts)),
            **matrices.flags,
        )

    run(choose("hidden_units", HIDDEN_CONFIGS, x_TD, matrices.sizes, run))
    return key_PG, gate_PG, h_PG


def input_gradient(
    dkey_PG: Tensor, dgate_PG: Tensor | None, matrices: Matrices, end_B: Tensor
) -> Tensor:
    """(P, D): each pair's gradient in its token, by keys and gates."""
    n_experts, _, inner, _ = matrices.sizes
    n_pairs = dkey_PG.shape[0]
    dx_PD = dkey_PG.new_empty(n_pairs, inner)
    if n_pairs == 0:
        return dx_PD

    def run(config: Config) -> None:
        tiles = triton.cdiv(n_pairs, config["BLOCK_P"]) + n_experts
        launch(
            input_gradient_kernel,
            tiles * triton.cdiv(inner, config["BLOCK_D"]),
            config,
            dkey_PG,
            *(dgate_PG, *matrices.by_key_and_gate, dx_PD, end_B, *matrices.sizes),
            *(dkey_PG.stride(0), *matrices.keys_BGD.stride()[:2], dx_PD.stride(0)),
            BLOCK_B=min(MOST_AT_ONCE, triton.next_power_of_2(n_experts)),
            **matrices.flags,
        )

    run(choose("input_gradient", INPUT_CONFIGS, dkey_PG, matrices.sizes, run))
    return dx_PD


def matrix_gradients(
    units: tuple[Tensor, Tensor, Tensor | None],
    x_TD: Tensor,
    dy_TD: Tensor,
    matrices: Matrices,
    token_P: Tensor,
    end_B: Tensor,
) -> Matrices:
    """Gradients in the matrices, 0 for an unread expert.

    units: the weighted hidden units, and the gradients of the pre-activations by key and by gate,
        (P, G) each.
    """
    n_experts, n_own, inner, width = matrices.sizes
    made, gated = matrices.empty_like(), matrices.gates_BGD is not None

    def run(config: Config) -> None:
        tiles = triton.cdiv(width, config["BLOCK_G"]) * triton.cdiv(inner, config["BLOCK_D"])
        launch(
            matrix_gradients_kernel,
            (n_experts * tiles, 3 if gated else 2),
            config,
            *_all_of(units, units[1]),
            *(x_TD, dy_TD, *_outputs(made), *_outputs(made.shared or made), end_B, token_P),
            *(n_own, inner, width, units[0].stride(0), x_TD.stride(0), dy_TD.stride(0)),
            *matrices.keys_BGD.stride()[:2],
            SHARED=made.shared is not None,
            PRECISION=matmul_precision(x_TD.dtype),
        )

    run(choose("matrix_gradients", GRADIENT_CONFIGS, x_TD, matrices.sizes, run))
    return made


def _outputs(made: Matrices) -> list[Tensor]:
    """Values, keys and gates; where there are none the kernel takes a pointer that it leaves."""
    return _all_of((made.values_BGD, made.keys_BGD, made.gates_BGD), made.keys_BGD)


def _all_of(tensors: tuple[Tensor | None, ...], other: Tensor) -> list[Tensor]:
    return [other if x is None else x for x in tensors]
