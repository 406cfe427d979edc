"""The experts: B blocks of G hidden units, computed for all tokens or for chosen pairs.

D model width, T tokens, B experts, G units of an expert, P (token, expert) pairs,
R = P * G (token, hidden unit) pairs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.kernels.grouped import grouped_mm
from workers.kernels.rows import row_dot, row_sum
from workers.layers.routing import Bags, Full, Ragged, Routing
from workers.layers.stats import RoutingStats

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
MATRIX_ROWS = 8  # experts at least this wide are matrices to the optimizer, narrower ones rows


class Experts(nn.Module):
    """y = sum over the chosen b of w_b [r_b] act(x K_b^T) V_b; with `gated`,
    act(x G_b^T) * (x K_b^T) in act's place; with `output_gate`, r_b = sigmoid(o_b . R_b) of the
    block's own output (Finedeep, arXiv 2502.12928), else 1.

    keys_BGD, gates_BGD, values_BGD: (B, G, D).  The values start at zero (docs/recipe.md).
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
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        shape = (n_experts, width, d_model)
        self.keys_BGD = nn.Parameter(torch.empty(shape))
        self.gates_BGD = nn.Parameter(torch.empty(shape)) if gated else None
        self.values_BGD = nn.Parameter(torch.empty(shape))
        self.output_gate_BD = nn.Parameter(torch.empty(shape[0], shape[2])) if output_gate else None
        # Narrow blocks are read row by row: a product each would be all overhead.
        self.by_rows = width < MATRIX_ROWS and not output_gate
        self.matrices = ("keys_BGD", "gates_BGD", "values_BGD") if width >= MATRIX_ROWS else ()
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

    def forward(self, x_TD: Tensor, routing: Routing, stats: RoutingStats | None = None) -> Tensor:
        """x_TD (T, D) and a routing of its T tokens -> (T, D)."""
        if isinstance(routing, Full):
            return self._all(x_TD, routing, stats)
        if self.by_rows:
            bags = routing if isinstance(routing, Bags) else routing.by_token(x_TD.shape[0])
            return self._rows(x_TD, bags, stats)
        ragged = routing.by_expert(len(self.keys_BGD)) if isinstance(routing, Bags) else routing
        return self._pairs(x_TD, ragged, stats)

    def scored_BGD(self) -> Tensor:
        """The matrix whose pre-activations say how strongly a block answers: the gates when gated
        (ours: they open or shut a unit, as the keys do in a plain block), else the keys."""
        return self.keys_BGD if self.gates_BGD is None else self.gates_BGD

    def _hidden(self, key_out: Tensor, gate_out: Tensor | None) -> Tensor:
        return self.activation(key_out) if gate_out is None else self.activation(gate_out) * key_out

    def _all(self, x_TD: Tensor, routing: Full, stats: RoutingStats | None) -> Tensor:
        n_experts, width, d_model = self.keys_BGD.shape
        gates_BGD = self.gates_BGD
        gate_out = None if gates_BGD is None else F.linear(x_TD, gates_BGD.flatten(0, 1))
        h_TH = self._hidden(F.linear(x_TD, self.keys_BGD.flatten(0, 1)), gate_out)
        if stats is not None:
            stats.add_hidden(h_TH)
        h_TBG = h_TH.view(-1, n_experts, width)
        if self.output_gate_BD is None:
            if routing.weight_TB is not None:
                h_TBG = h_TBG * routing.weight_TB.to(h_TBG.dtype).unsqueeze(2)
            return h_TBG.flatten(1) @ self.values_BGD.reshape(-1, d_model)
        o_BTD = torch.bmm(h_TBG.transpose(0, 1), self.values_BGD)
        scale_BT1 = torch.sigmoid(torch.bmm(o_BTD, self.output_gate_BD.unsqueeze(2)))
        if routing.weight_TB is not None:
            scale_BT1 = scale_BT1 * routing.weight_TB.to(o_BTD.dtype).t().unsqueeze(2)
        return (o_BTD * scale_BT1).sum(0)

    def _pairs(self, x_TD: Tensor, routing: Ragged, stats: RoutingStats | None) -> Tensor:
        counts, weight_P = routing.counts, routing.weight_P
        x_PD = x_TD.index_select(0, routing.token_P)
        gates_BGD = self.gates_BGD
        gate_out = None
        if gates_BGD is not None:
            gate_out = grouped_mm(x_PD, gates_BGD.transpose(1, 2), counts)
        h_PG = self._hidden(grouped_mm(x_PD, self.keys_BGD.transpose(1, 2), counts), gate_out)
        if stats is not None:
            stats.add_hidden(h_PG)
        if weight_P is not None:
            weight_P = weight_P.to(h_PG.dtype)
        if self.output_gate_BD is None:
            if weight_P is not None:
                h_PG = h_PG * weight_P.unsqueeze(1)
            o_PD = grouped_mm(h_PG, self.values_BGD, counts)
        else:
            o_PD = grouped_mm(h_PG, self.values_BGD, counts)
            score_P1 = grouped_mm(o_PD, self.output_gate_BD.unsqueeze(2), counts)
            scale_P1 = torch.sigmoid(score_P1)
            o_PD = o_PD * (scale_P1 if weight_P is None else scale_P1 * weight_P.unsqueeze(1))
        return torch.zeros_like(x_TD).index_add(0, routing.token_P, o_PD)

    def _rows(self, x_TD: Tensor, bags: Bags, stats: RoutingStats | None) -> Tensor:
        width = self.keys_BGD.shape[1]
        unit_G = torch.arange(width, device=x_TD.device)
        reads = (
            (bags.expert_P[:, None] * width + unit_G).flatten(),
            bags.token_P.repeat_interleave(width),
            bags.start_T * width,
        )
        score_R = bags.score_P
        if self.gates_BGD is None:
            h_R = self._hidden(row_dot(x_TD, self.keys_BGD.flatten(0, 1), *reads, score_R), None)
        else:
            gate_R = row_dot(x_TD, self.gates_BGD.flatten(0, 1), *reads, score_R)
            h_R = self._hidden(row_dot(x_TD, self.keys_BGD.flatten(0, 1), *reads), gate_R)
        if stats is not None:
            stats.add_hidden(h_R)
        if bags.weight_P is not None:
            h_R = h_R * bags.weight_P.to(h_R.dtype).repeat_interleave(width)
        return row_sum(h_R, self.values_BGD.flatten(0, 1), *reads)
