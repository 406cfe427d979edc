"""Experts over the tokens that read them, in torch: rows go through in tiles that stay in a core's
cache.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by
expert, R rows of a tile, C weights of a pair, each for G / C units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS, value_and_slope
from workers.kernels.api.autograd import Gradients
from workers.kernels.api.autograd import expert_ffn as differentiated
from workers.kernels.pairs import Operands, Pairs, SharedMatrices, Tile, Watch
from workers.kernels.place import kind
from workers.kernels.switch import onednn
from workers.kernels.torch.few_pairs import are_few, few

# A tile's widest tensor on the CPU, by measurement (benchmarks/layers.py): less makes thin products
# and many calls, more leaves the cache. A GPU takes all rows at once.
TILE_ELEMENTS = 1 << 18


def expert_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says."""
    plain = pairs.token_P is None and given.weight_PC is None
    if plain and torch.compiler.is_compiling():
        return _traceable(given, activation)
    rows = tile_rows(given.x_TD, given.keys_BGD.shape[1])
    if not torch.is_grad_enabled() and are_few(given, pairs, rows):
        return few(given, pairs, activation, watch)
    passes = (_forward, _backward) if pairs.token_P is None else ROUTED
    return differentiated(passes, given, pairs, activation, watch)


def joint_ffn(given: Operands, shared: SharedMatrices, pairs: Pairs, activation: str) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says."""
    own = given[1:4]
    pairs_of_matrices = zip(own, shared, strict=True)
    both = (None if a is None or b is None else torch.cat((a, b)) for a, b in pairs_of_matrices)
    joined = Operands._make((given.x_TD, *both, given.weight_PC))
    return expert_ffn(joined, pairs, activation, None)


def _traceable(given: Operands, activation: str) -> Tensor:
    """One expert of all tokens, without what a compiler cannot follow: tiles and `out`."""
    x_TD, keys_BGD, gates_BGD, values_BGD, _ = given
    key_TG, act = x_TD @ keys_BGD[0].t(), ACTIVATIONS[activation]
    h_TG = act(key_TG) if gates_BGD is None else act(x_TD @ gates_BGD[0].t()) * key_TG
    return h_TG @ values_BGD[0]


def tile_rows(x_TD: Tensor, width: int) -> int:
    """Rows of a tile."""
    if kind(x_TD) != "cpu":
        return 1 << 62
    return max(1, TILE_ELEMENTS // max(x_TD.shape[1], width))


def _forward(
    given: Operands, pairs: Pairs, activation: str, keep: bool, watch: Watch | None
) -> tuple[Tensor, Tensor, Tensor | None, list[Tile]]:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC = given
    n_pairs, width = sum(pairs.counts), keys_BGD.shape[1]
    key_PG = x_TD.new_empty(n_pairs if keep else 0, width)
    gate_PG = None if gates_BGD is None else torch.empty_like(key_PG)
    y_TD = torch.empty_like(x_TD) if pairs.token_P is None else torch.zeros_like(x_TD)
    keys, values = keys_BGD.unbind(0), values_BGD.unbind(0)
    gates = None if gates_BGD is None else gates_BGD.unbind(0)
    tiles = list(pairs.tiles(tile_rows(x_TD, width)))
    for tile in tiles:
        x_RD = pairs.read(x_TD, tile.rows)
        key_RG = key_PG[tile.rows] if keep else x_RD.new_empty(len(x_RD), width)
        h_RG = ACTIVATIONS[activation](_products(x_RD, keys, tile, key_RG, transposed=True))
        if gates is not None and gate_PG is not None:
            gate_RG = gate_PG[tile.rows] if keep else torch.empty_like(key_RG)
            _products(x_RD, gates, tile, gate_RG, transposed=True)
            h_RG = ACTIVATIONS[activation](gate_RG).mul_(key_RG)
        if watch is not None:
            watch(h_RG)
        if weight_PC is not None:
            _weigh(h_RG, weight_PC[tile.rows])
        pairs.add(y_TD, tile.rows, _products(h_RG, values, tile, torch.empty_like(x_RD)))
    return y_TD, key_PG, gate_PG, tiles


def _backward(
    dy_TD: Tensor,
    kept: tuple[Any, ...],
    pairs: Pairs,
    tiles: list[Tile],
    activation: str,
    grads: Gradients,
) -> None:
    for tile in tiles:
        _backward_tile(grads, kept, dy_TD, pairs, tile, activation)


# Routing gives an expert another number of rows at each step. oneDNN compiles, and keeps, a product
# for each shape: that took longer than it saved, and hundreds of megabytes (docs/kernels.md).
ROUTED = onednn(False)(_forward), onednn(False)(_backward)


def _backward_tile(
    grads: Gradients,
    tensors: tuple[Any, ...],
    dy_TD: Tensor,
    pairs: Pairs,
    tile: Tile,
    activation: str,
) -> None:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC, key_PG, gate_PG = tensors
    keys, values = keys_BGD.unbind(0), values_BGD.unbind(0)
    gates = None if gates_BGD is None else gates_BGD.unbind(0)
    rows = tile.rows
    x_RD, dy_RD, key_RG = pairs.read(x_TD, rows), pairs.read(dy_TD, rows), key_PG[rows]
    act_RG, slope_RG = value_and_slope(activation, key_RG if gates is None else gate_PG[rows])
    h_RG = act_RG if gates is None else act_RG * key_RG
    dh_RG = _products(dy_RD, values, tile, torch.empty_like(h_RG), transposed=True)
    if grads.weight is not None:
        n_weights = grads.weight.shape[1]
        grads.weight[rows] = (h_RG * dh_RG).view(len(h_RG), n_weights, -1).sum(2)
    if weight_PC is not None:
        _weigh(h_RG, weight_PC[rows])
        _weigh(dh_RG, weight_PC[rows])
    _add_weight_gradients(grads.values, h_RG, dy_RD, tile)
    # (gradient of pre-activations, their matrices, the gradient of those)
    opened = (dh_RG if gates is None else dh_RG * key_RG).mul_(slope_RG)
    parts = [(opened, keys, grads.keys)]
    if gates is not None:
        parts = [(dh_RG.mul_(act_RG), keys, grads.keys), (opened, gates, grads.gates)]
    dx_RD = torch.empty_like(x_RD)
    for place, (d_RG, matrices, grad_BGD) in enumerate(parts):
        _add_weight_gradients(grad_BGD, d_RG, x_RD, tile)
        if grads.x_TD is not None:
            _products(d_RG, matrices, tile, dx_RD, beta=1.0 if place else 0.0)
    if grads.x_TD is not None:
        pairs.add(grads.x_TD, rows, dx_RD)


def _products(
    x_RI: Tensor,
    matrices: Sequence[Tensor],
    tile: Tile,
    y_RO: Tensor,
    *,
    transposed: bool = False,
    beta: float = 0.0,
) -> Tensor:
    """y = beta y + each row times its expert's matrix."""
    parts = zip(tile.experts, x_RI.split(tile.sizes), y_RO.split(tile.sizes), strict=True)
    for expert, x, y in parts:
        w = matrices[expert].t() if transposed else matrices[expert]
        if beta:
            y.addmm_(x, w, beta=beta)
        else:
            torch.mm(x, w, out=y)
    return y_RO


def _add_weight_gradients(grad_BGD: Tensor | None, d_RG: Tensor, x_RD: Tensor, tile: Tile) -> None:
    """An expert's first rows write its gradient d^T x, the others add."""
    if grad_BGD is None:
        return
    parts = zip(
        tile.experts, tile.first, d_RG.split(tile.sizes), x_RD.split(tile.sizes), strict=True
    )
    for expert, first, d, x in parts:
        grad_BGD[expert].addmm_(d.t(), x, beta=0.0 if first else 1.0)


def _weigh(h_RG: Tensor, weight_RC: Tensor) -> None:
    if weight_RC.shape[1] == 1:
        h_RG.mul_(weight_RC)
    else:
        h_RG.view(*weight_RC.shape, -1).mul_(weight_RC.unsqueeze(2))
