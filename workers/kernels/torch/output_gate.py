"""Experts with gates on their outputs, in torch: each expert's output is made whole.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by expert,
H = B * G hidden units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.grouped import grouped_mm
from workers.kernels.pairs import Operands, Pairs, Watch


def output_gated_ffn(
    given: Operands, output_gate_BD: Tensor, pairs: Pairs, activation: str, watch: Watch | None
) -> Tensor:
    """(T, D), as workers.kernels.api.output_gate says."""
    if pairs.token_P is None:
        return _all(given, output_gate_BD, activation, watch)
    return _pairs(given, output_gate_BD, pairs, activation, watch)


def _all(given: Operands, output_gate_BD: Tensor, activation: str, watch: Watch | None) -> Tensor:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_TB = given
    n_experts, width, _ = keys_BGD.shape
    gate_TH = None if gates_BGD is None else F.linear(x_TD, gates_BGD.flatten(0, 1))
    h_TH = _hidden(F.linear(x_TD, keys_BGD.flatten(0, 1)), gate_TH, activation)
    if watch is not None:
        watch(h_TH)
    h_TBG = h_TH.view(-1, n_experts, width)
    o_BTD = torch.bmm(h_TBG.transpose(0, 1), values_BGD)
    scale_BT1 = torch.sigmoid(torch.bmm(o_BTD, output_gate_BD.unsqueeze(2)))
    if weight_TB is not None:
        scale_BT1 = scale_BT1 * weight_TB.to(o_BTD.dtype).t().unsqueeze(2)
    return (o_BTD * scale_BT1).sum(0)


def _pairs(
    given: Operands, output_gate_BD: Tensor, pairs: Pairs, activation: str, watch: Watch | None
) -> Tensor:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_P1 = given
    token_P, loads = pairs.token_P, pairs.loads
    assert token_P is not None
    if (n_pairs := sum(loads.listed)) < token_P.numel():  # the rest is room for pairs
        token_P, weight_P1 = token_P[:n_pairs], None if weight_P1 is None else weight_P1[:n_pairs]
    x_PD = x_TD.index_select(0, token_P)
    gate_PG = None
    if gates_BGD is not None:
        gate_PG = grouped_mm(x_PD, gates_BGD.transpose(1, 2), loads)
    h_PG = _hidden(grouped_mm(x_PD, keys_BGD.transpose(1, 2), loads), gate_PG, activation)
    if watch is not None:
        watch(h_PG)
    o_PD = grouped_mm(h_PG, values_BGD, loads)
    scale_P1 = torch.sigmoid(grouped_mm(o_PD, output_gate_BD.unsqueeze(2), loads))
    if weight_P1 is not None:
        scale_P1 = scale_P1 * weight_P1.to(o_PD.dtype)
    y_PD = (o_PD * scale_P1).to(x_TD.dtype)
    return torch.zeros_like(x_TD).index_add(0, token_P, y_PD)


def _hidden(key_out: Tensor, gate_out: Tensor | None, activation: str) -> Tensor:
    act = ACTIVATIONS[activation]
    return act(key_out) if gate_out is None else act(gate_out) * key_out
