"""Attention in torch, whose fused form for CPUs must not see the switch of products.

N sequences, H heads, L queries, S keys, C width of a head.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.kernels.place import kind
from workers.kernels.switch import OFF, ON, onednn, onednn_multiplies, turn_switch


def attention(
    q_NHLC: Tensor, k_NHSC: Tensor, v_NHSC: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """(N, H, L, C), as workers.kernels.api.attention says."""
    fused = functools.partial(
        F.scaled_dot_product_attention, attn_mask=mask, is_causal=causal, scale=scale
    )
    # The order matters: a compiler cannot follow the switch.
    if kind(q_NHLC) != "cpu" or torch.compiler.is_compiling() or not onednn_multiplies():
        return fused(q_NHLC, k_NHSC, v_NHSC)
    # Its many products of one head's few rows take six times as long by oneDNN.
    with onednn(False):
        y_NHLC = fused(q_NHLC, k_NHSC, v_NHSC)
    node = y_NHLC.grad_fn
    if node is not None:
        node.register_prehook(_off)
        node.register_hook(_on)
    return y_NHLC


def _off(grads: tuple[Tensor, ...]) -> None:
    turn_switch(OFF)


def _on(grads: tuple[Tensor, ...], grad_outputs: tuple[Tensor, ...]) -> None:
    turn_switch(ON)
