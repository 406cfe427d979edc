"""Experts over the tokens that read them: y[t] = sum of w act(x K^T) V over t's pairs.

Backward keeps the input and the pre-activations and makes the rest anew. Rows go through in
tiles that stay in a core's cache; no (pairs, D) tensor exists.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by
expert, R rows of a tile, C weights of a pair, each for G / C units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.activations import ACTIVATIONS, value_and_slope
from workers.kernels.dispatch import compiled_ops, triton_ops

# A tile's widest tensor on the CPU, by measurement (benchmarks/layers.py): less makes thin products
# and many calls, more leaves the cache. A GPU takes all rows at once.
TILE_ELEMENTS = 1 << 18

Watch = Callable[[Tensor], None]


@dataclass(frozen=True)
class Tile:
    """Consecutive pairs: `sizes[i]` of expert `experts[i]`, `first[i]` where they are its first."""

    rows: slice
    experts: list[int]
    sizes: list[int]
    first: list[bool]


@dataclass(frozen=True)
class Pairs:
    """Which token reads which expert.

    token_P: the token of each pair, None where one expert reads all tokens in order.  counts:
    pairs of each expert, B of them.
    """

    token_P: Tensor | None
    counts: list[int]

    def tiles(self, n_rows: int) -> Iterator[Tile]:
        """All pairs in order, n_rows a tile; an expert's pairs may lie in several."""
        rows = slice(0, 0)
        parts: list[tuple[int, int, bool]] = []
        for expert, count in enumerate(self.counts):
            done = 0
            while done < count:
                size = min(count - done, n_rows - (rows.stop - rows.start))
                parts.append((expert, size, done == 0))
                rows = slice(rows.start, rows.stop + size)
                done += size
                if rows.stop - rows.start == n_rows:
                    yield Tile(rows, *map(list, zip(*parts, strict=True)))
                    rows, parts = slice(rows.stop, rows.stop), []
        if parts:
            yield Tile(rows, *map(list, zip(*parts, strict=True)))

    def read(self, x_TD: Tensor, rows: slice) -> Tensor:
        """The tokens of a tile, (R, D)."""
        return x_TD[rows] if self.token_P is None else x_TD.index_select(0, self.token_P[rows])

    def add(self, y_TD: Tensor, rows: slice, part_RD: Tensor) -> None:
        """Add a tile's rows to their tokens."""
        if self.token_P is None:
            y_TD[rows] = part_RD
        else:
            y_TD.index_add_(0, self.token_P[rows], part_RD)


def tile_rows(x_TD: Tensor, width: int) -> int:
    """Rows of a tile."""
    if x_TD.device.type != "cpu":
        return 1 << 62
    return max(1, TILE_ELEMENTS // max(x_TD.shape[1], width))


def expert_ffn(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    pairs: Pairs,
    weight_PC: Tensor | None,
    activation: str,
    watch: Watch | None = None,
) -> Tensor:
    """(T, D): y[t] = sum over the pairs p of t, of expert b: (w_p h_p) V_b, with h = act(x K_b^T),
    or act(x G_b^T) * (x K_b^T) with gates.

    weight_PC: (P, C), or None for ones.  watch: called with each tile's h.  Differentiable once
    in x, the three matrices and the weight.  FLOPs 2 P G D a matrix, and twice that backward.
    """
    tensors = [x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC]
    if torch.is_autocast_enabled(x_TD.device.type):
        dtype = torch.get_autocast_dtype(x_TD.device.type)
        tensors = [None if x is None else x.to(dtype) for x in tensors]
    # One expert that all tokens read is three plain products: those are cuBLAS's.
    routed = pairs.token_P is not None and (weight_PC is None or weight_PC.shape[1] == 1)
    given = [x for x in tensors if x is not None]
    ops = triton_ops(*given) if routed else None
    if ops is None and routed:
        ops = compiled_ops(*given)
        ops = ops if ops is not None and keys_BGD.shape[1] <= ops.MOST_UNITS else None
    if ops is not None:
        return ops.expert_ffn(*tensors[:4], pairs, tensors[4], activation, watch)
    keep = torch.is_grad_enabled()
    return _ExpertFFN.apply(*tensors, pairs, activation, keep, watch)


class _ExpertFFN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        keys_BGD: Tensor,
        gates_BGD: Tensor | None,
        values_BGD: Tensor,
        weight_PC: Tensor | None,
        pairs: Pairs,
        activation: str,
        keep: bool,
        watch: Watch | None,
    ) -> Tensor:
        n_pairs, width = sum(pairs.counts), keys_BGD.shape[1]
        keep = keep and any(ctx.needs_input_grad)
        key_PG = x_TD.new_empty(n_pairs if keep else 0, width)
        gate_PG = None if gates_BGD is None else torch.empty_like(key_PG)
        y_TD = torch.empty_like(x_TD) if pairs.token_P is None else torch.zeros_like(x_TD)
        keys, gates, values = _matrices(keys_BGD, gates_BGD, values_BGD)
        for tile in pairs.tiles(tile_rows(x_TD, width)):
            x_RD = pairs.read(x_TD, tile.rows)
            key_RG = key_PG[tile.rows] if keep else x_RD.new_empty(len(x_RD), width)
            h_RG = ACTIVATIONS[activation](_products(x_RD, keys, tile, key_RG, transposed=True))
            if gates is not None:
                gate_RG = gate_PG[tile.rows] if keep else torch.empty_like(key_RG)
                _products(x_RD, gates, tile, gate_RG, transposed=True)
                h_RG = ACTIVATIONS[activation](gate_RG).mul_(key_RG)
            if watch is not None:
                watch(h_RG)
            if weight_PC is not None:
                _weigh(h_RG, weight_PC[tile.rows])
            pairs.add(y_TD, tile.rows, _products(h_RG, values, tile, torch.empty_like(x_RD)))
        ctx.save_for_backward(x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC, key_PG, gate_PG)
        ctx.pairs, ctx.activation = pairs, activation
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        tensors, pairs = ctx.saved_tensors, ctx.pairs
        grads = _Gradients.of(ctx.needs_input_grad, tensors, pairs)
        dy_TD = dy_TD.contiguous()
        for tile in pairs.tiles(tile_rows(dy_TD, tensors[1].shape[1])):
            _backward_tile(grads, tensors, dy_TD, pairs, tile, ctx.activation)
        return grads.x_TD, grads.keys, grads.gates, grads.values, grads.weight, *[None] * 4


@dataclass(frozen=True)
class _Gradients:
    """Accumulators of those inputs that want a gradient."""

    x_TD: Tensor | None
    keys: Tensor | None
    gates: Tensor | None
    values: Tensor | None
    weight: Tensor | None

    @classmethod
    def of(cls, wanted: tuple[bool, ...], tensors: tuple[Any, ...], pairs: Pairs) -> _Gradients:
        """Zero where nothing will be written: x, and the experts that nobody reads."""
        grads = [
            torch.empty_like(x) if wants and x is not None else None
            for wants, x in zip(wanted[:5], tensors[:5], strict=True)
        ]
        if grads[0] is not None and pairs.token_P is not None:
            grads[0].zero_()
        for grad_BGD in grads[1:4]:
            for expert, count in enumerate(pairs.counts):
                if grad_BGD is not None and not count:
                    grad_BGD[expert].zero_()
        return cls(*grads)


def _backward_tile(
    grads: _Gradients,
    tensors: tuple[Any, ...],
    dy_TD: Tensor,
    pairs: Pairs,
    tile: Tile,
    activation: str,
) -> None:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC, key_PG, gate_PG = tensors
    keys, gates, values = _matrices(keys_BGD, gates_BGD, values_BGD)
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


def _matrices(*stacks_BGD: Tensor | None) -> list[Sequence[Tensor] | None]:
    return [None if stack_BGD is None else stack_BGD.unbind(0) for stack_BGD in stacks_BGD]


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
