"""Gated activation act(g) * u in one pass over memory, forward and backward (SwiGLU and kin), and
all that the backward pass of experts makes of their pre-activations.

P rows (token, expert pairs sorted by expert), G units of an expert.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

ACTIVATIONS = ("gelu", "relu", "silu")
HIDDEN_CONFIGS = (
    Config.of(BLOCK_P=4, BLOCK_G=256, warps=4),
    Config.of(BLOCK_P=16, BLOCK_G=64, warps=4),
)
CONFIGS = (Config.of(BLOCK=1024, warps=4), Config.of(BLOCK=2048, warps=8))


@triton.jit
def act_and_slope(g, ACTIVATION: tl.constexpr):
    """act(g) and its derivative, float32; gelu is the exact one (erf)."""
    if ACTIVATION == "relu":
        return tl.maximum(g, 0.0), tl.where(g > 0.0, 1.0, 0.0)
    elif ACTIVATION == "silu":
        s = tl.sigmoid(g)
        return g * s, s * (1.0 + g * (1.0 - s))
    else:
        cdf = 0.5 * (1.0 + tl.erf(g * 0.7071067811865476))
        return g * cdf, cdf + g * 0.3989422804014327 * tl.exp(-0.5 * g * g)


@triton.jit
def gated_forward_kernel(gate_ptr, up_ptr, h_ptr, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """h = act(gate) * up, BLOCK elements a program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    act, _ = act_and_slope(gate, ACTIVATION)
    tl.store(h_ptr + at, (act * up).to(h_ptr.dtype.element_ty), mask=at < n)


@triton.jit
def gated_backward_kernel(
    gate_ptr,
    up_ptr,
    dh_ptr,
    dgate_ptr,
    dup_ptr,
    n,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradients of gate and up for that of h, BLOCK elements a program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    dh = tl.load(dh_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    act, slope = act_and_slope(gate, ACTIVATION)
    tl.store(dgate_ptr + at, (dh * up * slope).to(dgate_ptr.dtype.element_ty), mask=at < n)
    tl.store(dup_ptr + at, (dh * act).to(dup_ptr.dtype.element_ty), mask=at < n)


@triton.jit
def hidden_gradients_kernel(
    key_ptr,
    gate_ptr,
    dh_ptr,
    weight_ptr,
    h_ptr,
    dkey_ptr,
    dgate_ptr,
    dweight_ptr,
    end_ptr,
    n_pairs,
    width,
    n_weights,
    stride_p,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BOUNDED: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """BLOCK_P rows of one weight's units: w h, the gradients of both pre-activations for it, and
    that of w."""
    part = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = row < n_pairs
    if BOUNDED:
        live = row < tl.load(end_ptr)
    weight = tl.full((BLOCK_P,), 1.0, tl.float32)
    if WEIGHT:
        weight = tl.load(weight_ptr + row * n_weights + part, mask=live, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    for start in range(0, width, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        at = row[:, None] * stride_p + part * width + g[None, :]
        mask = live[:, None] & (g < width)[None, :]
        key = tl.load(key_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dh = tl.load(dh_ptr + at, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            gate = tl.load(gate_ptr + at, mask=mask, other=0.0).to(tl.float32)
            act, slope = act_and_slope(gate, ACTIVATION)
            h, dkey = act * key, act * dh
            dgate = dh * key * slope * weight[:, None]
            tl.store(dgate_ptr + at, dgate.to(dgate_ptr.dtype.element_ty), mask=mask)
        else:
            h, slope = act_and_slope(key, ACTIVATION)
            dkey = dh * slope
        total += tl.sum(h * dh, axis=1)
        h, dkey = h * weight[:, None], dkey * weight[:, None]
        tl.store(h_ptr + at, h.to(h_ptr.dtype.element_ty), mask=mask)
        tl.store(dkey_ptr + at, dkey.to(dkey_ptr.dtype.element_ty), mask=mask)
    if WEIGHT:
        # Rows that are no pairs have a gradient too: 0, for somebody may add it up.
        y = tl.where(live, total, 0.0).to(dweight_ptr.dtype.element_ty)
        tl.store(dweight_ptr + row * n_weights + part, y, mask=row < n_pairs)


@triton.jit
def weighted_hidden_kernel(
    key_ptr,
    gate_ptr,
    weight_ptr,
    h_ptr,
    n_pairs,
    width,
    n_weights,
    stride_p,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """BLOCK_P rows of one weight's units: w h."""
    part = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = row < n_pairs
    weight = tl.load(weight_ptr + row * n_weights + part, mask=live, other=0.0).to(tl.float32)
    for start in range(0, width, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        at = row[:, None] * stride_p + part * width + g[None, :]
        mask = live[:, None] & (g < width)[None, :]
        key = tl.load(key_ptr + at, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            gate = tl.load(gate_ptr + at, mask=mask, other=0.0).to(tl.float32)
            act, _ = act_and_slope(gate, ACTIVATION)
            h = act * key
        else:
            h, _ = act_and_slope(key, ACTIVATION)
        tl.store(h_ptr + at, (h * weight[:, None]).to(h_ptr.dtype.element_ty), mask=mask)


def gated_activation(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """act(gate) * up for equal shapes. Not differentiable: see `gated_gradients`."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}: got {activation!r}")
    if gate.shape != up.shape:
        raise ValueError(f"gate and up must have one shape: got {gate.shape} and {up.shape}")
    gate, up = gate.contiguous(), up.contiguous()
    h = torch.empty_like(gate)
    _run(gated_forward_kernel, (gate, up, h), activation)
    return h


def gated_gradients(gate: Tensor, up: Tensor, dh: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Gradients in gate and up of `gated_activation`, for the gradient dh of its result."""
    gate, up, dh = gate.contiguous(), up.contiguous(), dh.contiguous()
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    _run(gated_backward_kernel, (gate, up, dh, dgate, dup), activation)
    return dgate, dup


def weighted_hidden(
    key_TG: Tensor, gate_TG: Tensor | None, weight_TC: Tensor, activation: str
) -> Tensor:
    """act(gate) * key, or act(key), (T, G), each C-th of a row times its weight."""
    (n_tokens, width), n_weights = key_TG.shape, weight_TC.shape[1]
    if _is_by_unit(key_TG, weight_TC):
        if gate_TG is None:
            return gated_activation(key_TG, weight_TC, activation)
        return gated_activation(gate_TG, key_TG, activation).mul_(weight_TC)
    h_TG, weight_TC = torch.empty_like(key_TG), weight_TC.contiguous()
    if h_TG.numel() == 0:
        return h_TG

    def run(config: Config) -> None:
        launch(
            weighted_hidden_kernel,
            (triton.cdiv(n_tokens, config["BLOCK_P"]), n_weights),
            config,
            *(key_TG, gate_TG, weight_TC, h_TG, n_tokens, width // n_weights, n_weights),
            key_TG.stride(0),
            ACTIVATION=activation,
            GATED=gate_TG is not None,
        )

    run(choose("weighted_hidden", HIDDEN_CONFIGS, key_TG, (width, n_weights), run))
    return h_TG


def hidden_gradients(
    key_PG: Tensor,
    gate_PG: Tensor | None,
    dh_PG: Tensor,
    weight: Tensor | None,
    end_1: Tensor | None,
    activation: str,
    dweight: Tensor | None = None,
    dkey: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """w h (P, G), and for the gradient dh of it those of the pre-activations by key and by gate and
    of the weight; None for what is None.

    weight: (P,), or (P, C), each for G / C units.
    end_1: how many rows there are, (1,), on the device; those beyond are left as they are, and
        their weight has gradient 0. None for all.
    dweight, dkey: room for their gradients, where there is some.
    """
    n_pairs, width = key_PG.shape
    h_PG = torch.empty_like(key_PG)
    dkey_PG = torch.empty_like(key_PG) if dkey is None else dkey
    dgate_PG = None if gate_PG is None else torch.empty_like(key_PG)
    weight = None if weight is None else weight.contiguous()
    if weight is not None and dweight is None:
        dweight = torch.empty_like(weight)
    n_weights = 1 if weight is None or weight.ndim == 1 else weight.shape[1]
    if n_pairs == 0:
        return h_PG, dkey_PG, dgate_PG, dweight
    if weight is not None and end_1 is None and _is_by_unit(key_PG, weight):
        return _gradients_by_unit(key_PG, gate_PG, dh_PG, weight, activation, dweight)

    def run(config: Config) -> None:
        launch(
            hidden_gradients_kernel,
            (triton.cdiv(n_pairs, config["BLOCK_P"]), n_weights),
            config,
            *(key_PG, gate_PG, dh_PG, weight, h_PG, dkey_PG, dgate_PG, dweight, end_1),
            *(n_pairs, width // n_weights, n_weights, key_PG.stride(0)),
            ACTIVATION=activation,
            GATED=gate_PG is not None,
            WEIGHT=weight is not None,
            BOUNDED=end_1 is not None,
        )

    run(choose("hidden_gradients", HIDDEN_CONFIGS, key_PG, (width, n_weights), run))
    return h_PG, dkey_PG, dgate_PG, dweight


def _is_by_unit(key_PG: Tensor, weight: Tensor) -> bool:
    """Whether each unit has a weight, in the units' type. A program a weight would be one of one
    unit; but a plain unit's weight is what a gated unit multiplies its gate's activation by."""
    return weight.shape == key_PG.shape and weight.dtype == key_PG.dtype


def _gradients_by_unit(
    key_PG: Tensor,
    gate_PG: Tensor | None,
    dh_PG: Tensor,
    weight_PG: Tensor,
    activation: str,
    dweight_PG: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    if gate_PG is None:
        h_PG, dweight_PG, dkey_PG, _ = hidden_gradients(
            weight_PG, key_PG, dh_PG, None, None, activation, dkey=dweight_PG
        )
        assert dkey_PG is not None
        return h_PG, dkey_PG, None, dweight_PG
    h_PG, dkey_PG, dgate_PG, _ = hidden_gradients(key_PG, gate_PG, dh_PG, None, None, activation)
    assert dgate_PG is not None
    dweight_PG = torch.mul(h_PG, dh_PG, out=dweight_PG)
    return h_PG.mul_(weight_PG), dkey_PG.mul_(weight_PG), dgate_PG.mul_(weight_PG), dweight_PG


def _run(kernel: Any, tensors: tuple[Tensor, ...], activation: str) -> None:
    n = tensors[0].numel()
    if n == 0:
        return

    def run(config: Config) -> None:
        programs = triton.cdiv(n, config["BLOCK"])
        launch(kernel, programs, config, *tensors, n, ACTIVATION=activation)

    run(choose(kernel.__name__, CONFIGS, tensors[0], (tensors[0].shape[-1],), run))
