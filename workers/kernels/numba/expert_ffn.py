"""Experts over the tokens that read them, on a CPU: rows are read from their tokens and added to
them in place.

In mixed precision the products alone are narrow where the processor multiplies pairs of bfloat16:
their factors are rounded here, and what they make is float32.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by
expert, R rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.autograd import Gradients
from workers.kernels.api.autograd import expert_ffn as differentiated
from workers.kernels.api.mixed import product_dtype
from workers.kernels.numba.activations import CODES, hidden, hidden_backward
from workers.kernels.numba.blocks import MULTIPLIES_PAIRS
from workers.kernels.numba.grouped import grouped_product, grouped_weight_gradient
from workers.kernels.numba.paired import paired_columns, paired_rows
from workers.kernels.pairs import Operands, Pairs, Watch

# Of a tile's activations, by measurement (benchmarks/layers.py): they stay in a core's cache.
TILE_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Tile:
    """Consecutive pairs: runs of one expert each, and where they begin and end.

    token_R: the token of each.
    new_N: whether the run is its expert's first.
    """

    rows: slice
    token_R: Tensor
    place_R: Tensor
    expert_N: Tensor
    start_N: Tensor
    new_N: Tensor

    def product(self, x_TI: Tensor, w_BOI: Tensor, n_terms: int, y_RO: Tensor) -> Tensor:
        """y = each pair's row of x times its expert's matrix, turned."""
        places, runs = (y_RO, self.place_R, False, n_terms), (self.expert_N, self.start_N)
        grouped_product(x_TI, self.token_R, w_BOI, True, *runs, *places)
        return y_RO

    def add_product(self, x_RI: Tensor, w_BIO: Tensor, n_terms: int, y_TO: Tensor) -> None:
        """Add each pair's product to its token's row of y."""
        places, runs = (y_TO, self.token_R, True, n_terms), (self.expert_N, self.start_N)
        grouped_product(x_RI, self.place_R, w_BIO, False, *runs, *places)

    def weight_gradient(self, d_RG: Tensor, x_TD: Tensor, grad_BGD: Tensor | None) -> None:
        """Add d^T x of its pairs to each expert's gradient."""
        if grad_BGD is not None:
            runs = self.expert_N, self.start_N, self.new_N
            grouped_weight_gradient(d_RG, x_TD, self.token_R, *runs, grad_BGD)


@dataclass(frozen=True)
class Factors:
    """How products read their factors.

    columns: of a tensor whose sums go over its columns.
    rows: of matrices whose sums go over their rows.
    """

    columns: Callable[[Tensor], Tensor]
    rows: Callable[[Tensor], Tensor]


def _as_it_is(x: Tensor) -> Tensor:
    return x


WHOLE, NARROW = Factors(_as_it_is, _as_it_is), Factors(paired_columns, paired_rows)


def _tiles(pairs: Pairs, width: int) -> list[Tile]:
    assert pairs.token_P is not None
    n_rows = max(1, TILE_ELEMENTS // width)
    place_R = torch.arange(min(n_rows, sum(pairs.counts)))
    tiles = []
    for tile in pairs.tiles(n_rows):
        token_R = pairs.token_P[tile.rows]
        start_N = torch.tensor([0, *tile.sizes]).cumsum(0)
        expert_N, new_N = torch.tensor(tile.experts), torch.tensor(tile.first)
        tiles.append(Tile(tile.rows, token_R, place_R[: len(token_R)], expert_N, start_N, new_N))
    return tiles


def expert_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says, of pairs with tokens and one weight each."""
    given = Operands._make(None if x is None else x.contiguous() for x in given)
    return differentiated((_forward, _backward), given, pairs, activation, watch)


def _forward(
    given: Operands, pairs: Pairs, activation: str, keep: bool, watch: Watch | None
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Factors, list[Tile]]]:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_P1 = given
    n_pairs, (width, d_model) = sum(pairs.counts), keys_BGD.shape[1:]
    tiles, code = _tiles(pairs, width), CODES[activation]
    kept = [x_TD.new_empty(n_pairs if keep else 0, width) for _ in (keys_BGD, gates_BGD)]
    key_PG, gate_PG = kept[0], None if gates_BGD is None else kept[1]
    y_TD = torch.zeros_like(x_TD)
    none = x_TD.new_empty(0)
    mixed = product_dtype(x_TD) == torch.bfloat16
    factors = NARROW if mixed and MULTIPLIES_PAIRS else WHOLE
    x, keys, values = factors.columns(x_TD), factors.columns(keys_BGD), factors.rows(values_BGD)
    gates = None if gates_BGD is None else factors.columns(gates_BGD)
    for tile in tiles:
        outputs = [
            x_PG[tile.rows] if keep else x_TD.new_empty(len(tile.token_R), width)
            for x_PG in (key_PG, gate_PG)
            if x_PG is not None
        ]
        key_RG = tile.product(x, keys, d_model, outputs[0])
        gate_RG = none.view(0, width)
        if gates is not None:
            gate_RG = tile.product(x, gates, d_model, outputs[1])
        weight_R = none if weight_P1 is None else weight_P1[tile.rows].flatten()
        h_RG = torch.empty_like(key_RG)
        if watch is not None:
            hidden(code, key_RG, gate_RG, none, h_RG)
            watch(h_RG)
        hidden(code, key_RG, gate_RG, weight_R, h_RG)
        tile.add_product(factors.columns(h_RG), values, width, y_TD)
    return y_TD, key_PG, gate_PG, (factors, tiles)


def _backward(
    dy_TD: Tensor,
    kept: tuple[Any, ...],
    pairs: Pairs,
    kept_beside: tuple[Factors, list[Tile]],
    activation: str,
    grads: Gradients,
) -> None:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_P1, key_PG, gate_PG = kept
    (factors, tiles), (width, d_model) = kept_beside, keys_BGD.shape[1:]
    gated, none = gate_PG is not None, dy_TD.new_empty(0)
    x, dy, values = (factors.columns(t) for t in (x_TD, dy_TD, values_BGD))
    keys, gates = (None if w is None else factors.rows(w) for w in (keys_BGD, gates_BGD))
    for tile in tiles:
        rows, key_RG = tile.rows, key_PG[tile.rows]
        gate_RG = gate_PG[rows] if gated else none.view(0, width)
        weight_R = none if weight_P1 is None else weight_P1[rows].flatten()
        dh_RG = tile.product(dy, values, d_model, torch.empty_like(key_RG))
        h_RG, d_gate_RG = torch.empty_like(key_RG), torch.empty_like(gate_RG)
        d_weight_R = none if grads.weight is None else grads.weight[rows].view(-1)
        hidden_backward(
            CODES[activation], key_RG, gate_RG, weight_R, dh_RG, h_RG, d_gate_RG, d_weight_R
        )
        tile.weight_gradient(factors.columns(h_RG), dy, grads.values)
        for d_wide_RG, w, d_w_BGD in ((dh_RG, keys, grads.keys), (d_gate_RG, gates, grads.gates)):
            if w is None:
                continue
            d_RG = factors.columns(d_wide_RG)
            tile.weight_gradient(d_RG, x, d_w_BGD)
            if grads.x_TD is not None:
                tile.add_product(d_RG, w, width, grads.x_TD)
