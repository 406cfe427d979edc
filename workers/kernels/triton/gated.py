"""Gated activation act(g) * u in one pass over memory, forward and backward (SwiGLU and kin)."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

ACTIVATIONS = ("gelu", "relu", "silu")
CONFIGS = (Config.of(BLOCK=1024, warps=4), Config.of(BLOCK=2048, warps=8))


@triton.jit
def _activation(g, ACTIVATION: tl.constexpr):
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
    act, _ = _activation(gate, ACTIVATION)
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
    act, slope = _activation(gate, ACTIVATION)
    tl.store(dgate_ptr + at, (dh * up * slope).to(dgate_ptr.dtype.element_ty), mask=at < n)
    tl.store(dup_ptr + at, (dh * act).to(dup_ptr.dtype.element_ty), mask=at < n)


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


def _run(kernel: Any, tensors: tuple[Tensor, ...], activation: str) -> None:
    n = tensors[0].numel()
    if n == 0:
        return

    def run(config: Config) -> None:
        programs = triton.cdiv(n, config["BLOCK"])
        launch(kernel, programs, config, *tensors, n, ACTIVATION=activation)

    run(choose(kernel.__name__, CONFIGS, tensors[0], (tensors[0].shape[-1],), run))
