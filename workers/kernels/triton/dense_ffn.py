"""One expert that all tokens read, on a GPU: a library's products, and between them one kernel that
makes value and gradients of the hidden units.

T tokens, D model width, G hidden units, C weights of a token, each for G / C units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.autograd import Gradients
from workers.kernels.api.autograd import expert_ffn as differentiated
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.torch.expert_ffn import expert_ffn as torch_form
from workers.kernels.triton.gated import gated_activation, hidden_gradients, weighted_hidden


def dense_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says, of one expert and all tokens."""
    if torch.compiler.is_compiling():  # which makes kernels of its own
        return torch_form(given, pairs, activation, watch)
    return differentiated((_forward, _backward), given, pairs, activation, watch)


def plain_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """The same with weights, each of as many units."""
    if pairs.token_P is not None:  # of several weights a pair, which no layer has
        return torch_form(given, pairs, activation, watch)
    return dense_ffn(given, pairs, activation, watch)


def _forward(
    given: Operands, pairs: Pairs, activation: str, keep: bool, watch: Watch | None
) -> tuple[Tensor, Tensor, Tensor | None, None]:
    x_TD, keys_1GD, gates_1GD, values_1GD, weight_TC = given
    key_TG = x_TD @ keys_1GD[0].t()
    gate_TG = None if gates_1GD is None else x_TD @ gates_1GD[0].t()
    if weight_TC is None or watch is not None:
        h_TG = _hidden(key_TG, gate_TG, activation)
        if watch is not None:
            watch(h_TG)
    if weight_TC is not None:
        h_TG = weighted_hidden(key_TG, gate_TG, weight_TC, activation)
    return h_TG @ values_1GD[0], key_TG, gate_TG, None


def _hidden(key_TG: Tensor, gate_TG: Tensor | None, activation: str) -> Tensor:
    if gate_TG is None:
        return ACTIVATIONS[activation](key_TG)
    return gated_activation(gate_TG, key_TG, activation)


def _backward(
    dy_TD: Tensor,
    kept: tuple[Any, ...],
    pairs: Pairs,
    nothing: None,
    activation: str,
    grads: Gradients,
) -> None:
    x_TD, keys_1GD, gates_1GD, values_1GD, weight_TC, key_TG, gate_TG = kept
    dh_TG = dy_TD @ values_1GD[0].t()
    h_TG, dkey_TG, dgate_TG, _ = hidden_gradients(
        key_TG, gate_TG, dh_TG, weight_TC, None, activation, grads.weight
    )
    if grads.values is not None:
        torch.mm(h_TG.t(), dy_TD, out=grads.values[0])
    parts = [(dkey_TG, keys_1GD, grads.keys)]
    if dgate_TG is not None:
        parts.append((dgate_TG, gates_1GD, grads.gates))
    for place, (d_TG, w_1GD, dw_1GD) in enumerate(parts):
        if dw_1GD is not None:
            torch.mm(d_TG.t(), x_TD, out=dw_1GD[0])
        if grads.x_TD is not None and place:
            grads.x_TD.addmm_(d_TG, w_1GD[0])
        elif grads.x_TD is not None:
            torch.mm(d_TG, w_1GD[0], out=grads.x_TD)
