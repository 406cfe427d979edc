"""The experts: B of them, each of G hidden units, computed for all tokens or for chosen pairs.

D model width, T tokens, B experts, G units of an expert, P (token, expert) pairs,
R = P * G (token, hidden unit) pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search_space.experts import MATRIX_ROWS
from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.expert_ffn import expert_ffn, joint_ffn
from workers.kernels.api.mixed import product_dtype
from workers.kernels.api.output_gate import output_gated_ffn
from workers.kernels.api.rows import row_dot, row_sum
from workers.kernels.pairs import Pairs
from workers.kernels.place import kind
from workers.kernels.prepared import prepared
from workers.kernels.row_order import RowOrder
from workers.layers.declared import Declared
from workers.layers.routing import Bags, Choices, Full, Open, Ragged, Routing
from workers.layers.stats import RoutingStats

SPREAD = 32  # rows of a table for one that is read, up to which a GPU computes all


class Experts(Declared):
    """y = sum over the chosen b of w_b [r_b] act(x K_b^T) V_b; with `gated`,
    act(x G_b^T) * (x K_b^T) in act's place; with `output_gate`, r_b = sigmoid(o_b . R_b) of the
    expert's own output (Finedeep, arXiv 2502.12928), else 1.

    keys_BGD, gates_BGD: (B, G, D).
    values_BGD: (B, G, D), zero at the start (docs/recipe.md).
    output_gate_BD: the vectors o, (B, D).
    reads: how many of them a token reads, where that is known: see `is_much`.
    """

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        width: int,
        *,
        activation: str = "gelu",
        gated: bool = False,
        output_gate: bool = False,
        reads: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        shape = (n_experts, width, d_model)
        self.keys_BGD = nn.Parameter(torch.empty(shape))
        self.gates_BGD = nn.Parameter(torch.empty(shape)) if gated else None
        self.values_BGD = nn.Parameter(torch.empty(shape))
        self.output_gate_BD = nn.Parameter(torch.empty(shape[0], shape[2])) if output_gate else None
        # Narrow experts are read row by row: a product each would be all overhead.
        self.by_rows = width < MATRIX_ROWS and not output_gate
        self.matrices = ("keys_BGD", "gates_BGD", "values_BGD") if width >= MATRIX_ROWS else ()
        tables = ("keys_BGD", "gates_BGD", "values_BGD")
        self.tables = tables if self.by_rows else ()
        present = (name for name in tables if getattr(self, name) is not None)
        self.spreads = self.by_rows and width == 1 and is_much(reads, n_experts)
        self.factors = () if self.by_rows and not self.spreads else tuple(present)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit-variance pre-activations, zero outputs."""
        std = 1 / math.sqrt(self.keys_BGD.shape[2])
        nn.init.normal_(self.keys_BGD, std=std)
        if self.gates_BGD is not None:
            nn.init.normal_(self.gates_BGD, std=std)
        nn.init.zeros_(self.values_BGD)
        if self.output_gate_BD is not None:
            nn.init.zeros_(self.output_gate_BD)

    def forward(
        self,
        x_TD: Tensor,
        routing: Routing | None,
        stats: RoutingStats | None = None,
        shared: Experts | None = None,
    ) -> Tensor:
        """x_TD (T, D) and a routing of its T tokens -> (T, D).

        shared: whose units are the last experts of a ragged routing: see `joins`.

        Without a routing: the matrix (B, G, D) whose pre-activations say how strongly an expert
        answers: the gates when gated (ours: they open or shut a unit, as the keys do in a plain
        expert), else the keys. A selection asks for it by such a call, for an adapter may change
        parameters as long as a call lasts (PEFT's do).
        """
        if routing is None:
            return self.keys_BGD if self.gates_BGD is None else self.gates_BGD
        laid_out = self._laid_out(routing, x_TD, stats)
        if stats is not None and isinstance(laid_out, Ragged):
            laid_out = laid_out.exact()
        if isinstance(laid_out, Full):
            return self._all(x_TD, laid_out, stats)
        if shared is not None and isinstance(laid_out, Ragged):
            return self._joined(x_TD, laid_out, shared)
        if self.by_rows:
            bags = laid_out if isinstance(laid_out, Bags) else laid_out.by_token(x_TD.shape[0])
            return self._rows(x_TD, bags, stats)
        ragged = laid_out.by_expert(len(self.keys_BGD)) if isinstance(laid_out, Bags) else laid_out
        return self._pairs(x_TD, ragged, stats)

    def _laid_out(
        self, routing: Routing, x_TD: Tensor, stats: RoutingStats | None
    ) -> Full | Ragged | Bags:
        """Open pairs as a GPU computes them: narrow experts are all computed, a shut one with
        weight zero, for they have no product whose length the device knows alone. Who measures
        waits for the device all the same."""
        if isinstance(routing, Choices):
            if stats is None and self.spreads and kind(x_TD) != "cpu":
                return Full(routing.spread(len(self.keys_BGD), product_dtype(x_TD)))
            return routing.bags
        if not isinstance(routing, Open):
            return routing
        if stats is not None:
            return Ragged.from_open(routing.weight_TB, routing.open_TB)
        return routing.bounded() if self.takes_room else Full(routing.weight_TB)

    @property
    def takes_room(self) -> bool:
        """Whether there are products of pairs whose number the device knows alone."""
        return not self.by_rows

    def joins(self, shared: Experts) -> int:
        """As how many experts of this width the units of a shared one can be computed with these,
        in the same products; 0 for not at all."""
        width = self.keys_BGD.shape[1]
        n, rest = divmod(shared.keys_BGD.shape[1], width)
        return n if self.takes_room and self.output_gate_BD is None and not rest else 0

    def _joined(self, x_TD: Tensor, routing: Ragged, shared: Experts) -> Tensor:
        assert routing.weight_P is not None
        keys, gates, values = (
            None if w is None else w.view(-1, *self.keys_BGD.shape[1:]) for w in shared._matrices()
        )
        assert keys is not None and values is not None
        weight_P1 = routing.weight_P.unsqueeze(1)
        return joint_ffn(
            x_TD, self._matrices(), (keys, gates, values), routing.pairs, weight_P1, self.activation
        )

    def _hidden(self, key_out: Tensor, gate_out: Tensor | None) -> Tensor:
        act = ACTIVATIONS[self.activation]
        return act(key_out) if gate_out is None else act(gate_out) * key_out

    def _all(self, x_TD: Tensor, routing: Full, stats: RoutingStats | None) -> Tensor:
        n_tokens, gate_BD = x_TD.shape[0], self.output_gate_BD
        if gate_BD is not None:
            pairs = Pairs(None, [n_tokens] * len(gate_BD))
            return self._output_gated(x_TD, gate_BD, pairs, routing.weight_TB, stats)
        # All experts are one of their whole width, whose units are weighted in groups.
        keys, gates, values = (None if w is None else _whole(w) for w in self._matrices())
        pairs = Pairs(None, [n_tokens])
        assert keys is not None and values is not None
        return self._fused(x_TD, (keys, gates, values), pairs, routing.weight_TB, stats)

    def _matrices(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Keys, gates and values, as products read them."""
        gates = None if self.gates_BGD is None else prepared(self.gates_BGD)
        return prepared(self.keys_BGD), gates, prepared(self.values_BGD)

    def _pairs(self, x_TD: Tensor, routing: Ragged, stats: RoutingStats | None) -> Tensor:
        weight_P1 = None if routing.weight_P is None else routing.weight_P.unsqueeze(1)
        gate_BD = self.output_gate_BD
        if gate_BD is not None:
            return self._output_gated(x_TD, gate_BD, routing.pairs, weight_P1, stats)
        return self._fused(x_TD, self._matrices(), routing.pairs, weight_P1, stats)

    def _fused(
        self,
        x_TD: Tensor,
        matrices: tuple[Tensor, Tensor | None, Tensor],
        pairs: Pairs,
        weight_PC: Tensor | None,
        stats: RoutingStats | None,
    ) -> Tensor:
        if weight_PC is not None and kind(x_TD) == "cpu":  # a GPU's kernels weigh in float32
            weight_PC = weight_PC.to(x_TD.dtype)
        watch = None if stats is None else stats.add_hidden
        return expert_ffn(x_TD, *matrices, pairs, weight_PC, self.activation, watch)

    def _output_gated(
        self,
        x_TD: Tensor,
        gate_BD: Tensor,
        pairs: Pairs,
        weight_PC: Tensor | None,
        stats: RoutingStats | None,
    ) -> Tensor:
        watch = None if stats is None else stats.add_hidden
        given = (*self._matrices(), gate_BD, pairs, weight_PC)
        return output_gated_ffn(x_TD, *given, self.activation, watch)

    def _rows(self, x_TD: Tensor, bags: Bags, stats: RoutingStats | None) -> Tensor:
        width = self.keys_BGD.shape[1]
        row_R, token_R, start_T = bags.expert_P, bags.token_P, bags.start_T
        weight_R, score_R = bags.weight_P, bags.score_P
        if width > 1:
            unit_G = torch.arange(width, device=x_TD.device)
            row_R = (row_R[:, None] * width + unit_G).flatten()
            token_R, start_T = token_R.repeat_interleave(width), start_T * width
            weight_R = None if weight_R is None else weight_R.repeat_interleave(width)
        n_rows, sparse = len(self.keys_BGD) * width, self.sparse_gradients
        order = RowOrder(row_R, token_R, start_T, n_rows)
        if self.gates_BGD is None:
            h_R = self._hidden(row_dot(x_TD, self.keys_BGD, order, score_R, sparse), None)
        else:
            gate_R = row_dot(x_TD, self.gates_BGD, order, score_R, sparse)
            h_R = self._hidden(row_dot(x_TD, self.keys_BGD, order, None, sparse), gate_R)
        if stats is not None:
            stats.add_hidden(h_R)
        if weight_R is not None:
            h_R = h_R * weight_R.to(h_R.dtype)
        return row_sum(h_R, self.values_BGD, order, sparse)


def is_much(reads: float, n_rows: int) -> bool:
    """Whether a token reads so much of a table that a GPU multiplies by all of it.

    Its products are that much faster than its reads, whose gradients want a sort besides: steps of
    PKM, which reads 1/32, take less time by products on an H100 (docs/kernels.md).
    """
    return reads * SPREAD >= n_rows


def _whole(w_BGD: Tensor) -> Tensor:
    return w_BGD.reshape(1, -1, w_BGD.shape[2])
