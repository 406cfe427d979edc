"""One expert that all tokens read, on a CPU: a library's products, and compiled activations between
them that make value and gradient in one pass.

T tokens, D model width, G hidden units, R rows of a tile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.autograd import Gradients
from workers.kernels.api.autograd import expert_ffn as differentiated
from workers.kernels.numba.activations import CODES, hidden, hidden_backward
from workers.kernels.pairs import Pairs, Watch
from workers.kernels.torch.expert_ffn import tile_rows


def dense_ffn(
    x_TD: Tensor,
    keys_1GD: Tensor,
    gates_1GD: Tensor | None,
    values_1GD: Tensor,
    pairs: Pairs,
    weight_PC: None,
    activation: str,
    watch: Watch | None,
) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says, of one expert and all tokens, unweighted."""
    tensors = x_TD, keys_1GD, gates_1GD, values_1GD, weight_PC
    return differentiated((_forward, _backward), tensors, pairs, activation, watch)


def _forward(
    x_TD: Tensor,
    keys_1GD: Tensor,
    gates_1GD: Tensor | None,
    values_1GD: Tensor,
    weight_PC: None,
    pairs: Pairs,
    activation: str,
    keep: bool,
    watch: Watch | None,
) -> tuple[Tensor, Tensor, Tensor | None, list[slice]]:
    n_tokens, width = len(x_TD), keys_1GD.shape[1]
    n_rows = min(tile_rows(x_TD, width), n_tokens)
    # Without backward, all tiles share the rows of one.
    room = n_tokens if keep else n_rows
    key_TG = x_TD.new_empty(room, width)
    gate_TG = None if gates_1GD is None else torch.empty_like(key_TG)
    y_TD, none = torch.empty_like(x_TD), x_TD.new_empty(0)
    tiles = [slice(start, start + n_rows) for start in range(0, n_tokens, max(1, n_rows))]
    for rows in tiles:
        x_RD = x_TD[rows]
        own = rows if keep else slice(0, len(x_RD))
        key_RG = torch.mm(x_RD, keys_1GD[0].t(), out=key_TG[own])
        gate_RG = none.view(0, width)
        if gates_1GD is not None and gate_TG is not None:
            gate_RG = torch.mm(x_RD, gates_1GD[0].t(), out=gate_TG[own])
        h_RG = torch.empty_like(key_RG)
        hidden(CODES[activation], key_RG, gate_RG, none, h_RG)
        if watch is not None:
            watch(h_RG)
        torch.mm(h_RG, values_1GD[0], out=y_TD[rows])
    return y_TD, key_TG, gate_TG, tiles


def _backward(
    dy_TD: Tensor,
    kept: tuple[Any, ...],
    pairs: Pairs,
    tiles: list[slice],
    activation: str,
    grads: Gradients,
) -> None:
    x_TD, keys_1GD, gates_1GD, values_1GD, _, key_TG, gate_TG = kept
    none = dy_TD.new_empty(0)
    for rows in tiles:
        x_RD, dy_RD, key_RG = x_TD[rows], dy_TD[rows], key_TG[rows]
        gate_RG = none.view(0, key_RG.shape[1]) if gate_TG is None else gate_TG[rows]
        h_RG, d_gate_RG = torch.empty_like(key_RG), torch.empty_like(gate_RG)
        d_key_RG = torch.mm(dy_RD, values_1GD[0].t())
        hidden_backward(CODES[activation], key_RG, gate_RG, none, d_key_RG, h_RG, d_gate_RG, none)
        beta = 1.0 if rows.start else 0.0
        if grads.values is not None:
            grads.values[0].addmm_(h_RG.t(), dy_RD, beta=beta)
        parts = [(d_key_RG, keys_1GD, grads.keys)]
        if gates_1GD is not None:
            parts.append((d_gate_RG, gates_1GD, grads.gates))
        for place, (d_RG, w_1GD, dw_1GD) in enumerate(parts):
            if dw_1GD is not None:
                dw_1GD[0].addmm_(d_RG.t(), x_RD, beta=beta)
            if grads.x_TD is not None:
                grads.x_TD[rows].addmm_(d_RG, w_1GD[0], beta=1.0 if place else 0.0)
