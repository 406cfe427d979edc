"""One expert that all tokens read, on a CPU: a library's products, and compiled activations between
them that make value and gradient in one pass.

In mixed precision the products alone are narrow: their factors are rounded here, and what they make
is kept, and their gradients added, in float32.

T tokens, D model width, G hidden units, R rows of a tile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.autograd import Gradients
from workers.kernels.api.autograd import expert_ffn as differentiated
from workers.kernels.api.mixed import product_dtype
from workers.kernels.numba.activations import CODES, hidden, hidden_backward
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.torch.expert_ffn import tile_rows


def dense_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says, of one expert and all tokens, unweighted."""
    return differentiated((_forward, _backward), given, pairs, activation, watch)


def _forward(
    given: Operands, pairs: Pairs, activation: str, keep: bool, watch: Watch | None
) -> tuple[Tensor, Tensor, Tensor | None, tuple[torch.dtype, list[slice]]]:
    x_TD, keys_1GD, gates_1GD, values_1GD, _ = given
    n_tokens, width = len(x_TD), keys_1GD.shape[1]
    n_rows = min(tile_rows(x_TD, width), n_tokens)
    # Without backward, all tiles share the rows of one.
    room = n_tokens if keep else n_rows
    key_TG = x_TD.new_empty(room, width)
    gate_TG = None if gates_1GD is None else torch.empty_like(key_TG)
    y_TD, none = torch.empty_like(x_TD), x_TD.new_empty(0)
    dtype = product_dtype(x_TD)
    x, keys, values = x_TD.to(dtype), keys_1GD[0].to(dtype), values_1GD[0].to(dtype)
    gates = None if gates_1GD is None else gates_1GD[0].to(dtype)
    tiles = [slice(start, start + n_rows) for start in range(0, n_tokens, max(1, n_rows))]
    for rows in tiles:
        x_RD = x[rows]
        own = rows if keep else slice(0, len(x_RD))
        key_RG = _multiply(x_RD, keys.t(), key_TG[own])
        gate_RG = none.view(0, width)
        if gates is not None and gate_TG is not None:
            gate_RG = _multiply(x_RD, gates.t(), gate_TG[own])
        h_RG = torch.empty_like(key_RG)
        hidden(CODES[activation], key_RG, gate_RG, none, h_RG)
        if watch is not None:
            watch(h_RG)
        _multiply(h_RG.to(dtype), values, y_TD[rows])
    return y_TD, key_TG, gate_TG, (dtype, tiles)


def _backward(
    dy_TD: Tensor,
    kept: tuple[Any, ...],
    pairs: Pairs,
    kept_beside: tuple[torch.dtype, list[slice]],
    activation: str,
    grads: Gradients,
) -> None:
    *tensors, key_TG, gate_TG = kept
    dtype, tiles = kept_beside
    narrow: list[Any] = [None if t is None else t.to(dtype) for t in tensors]
    x_TD, keys_1GD, gates_1GD, values_1GD, _ = narrow
    none, dy = dy_TD.new_empty(0), dy_TD.to(dtype)
    for rows in tiles:
        x_RD, dy_RD, key_RG = x_TD[rows], dy[rows], key_TG[rows]
        gate_RG = none.view(0, key_RG.shape[1]) if gate_TG is None else gate_TG[rows]
        h_RG, d_gate_RG = torch.empty_like(key_RG), torch.empty_like(gate_RG)
        d_key_RG = _multiply(dy_RD, values_1GD[0].t(), torch.empty_like(key_RG))
        hidden_backward(CODES[activation], key_RG, gate_RG, none, d_key_RG, h_RG, d_gate_RG, none)
        adds = rows.start > 0
        if grads.values is not None:
            _add_product(h_RG.to(dtype).t(), dy_RD, grads.values[0], adds)
        parts = [(d_key_RG, keys_1GD, grads.keys)]
        if gates_1GD is not None:
            parts.append((d_gate_RG, gates_1GD, grads.gates))
        for place, (d_wide_RG, w_1GD, dw_1GD) in enumerate(parts):
            d_RG = d_wide_RG.to(dtype)
            if dw_1GD is not None:
                _add_product(d_RG.t(), x_RD, dw_1GD[0], adds)
            if grads.x_TD is not None:
                _add_product(d_RG, w_1GD[0], grads.x_TD[rows], place > 0)


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """out = a @ b, in out's dtype."""
    return torch.mm(a, b, out=out) if a.dtype == out.dtype else out.copy_(torch.mm(a, b))


def _add_product(a: Tensor, b: Tensor, out: Tensor, adds: bool) -> None:
    """out (+)= a @ b."""
    if a.dtype == out.dtype:
        out.addmm_(a, b, beta=1.0 if adds else 0.0)
    elif adds:
        out.add_(torch.mm(a, b))
    else:
        out.copy_(torch.mm(a, b))
