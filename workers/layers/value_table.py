"""A bag of value rows: the memory of PKM (Lample et al. 2019, arXiv 1907.05242).

D model width, T tokens, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.kernels.api.mixed import lowered
from workers.kernels.api.rows import row_sum
from workers.kernels.place import kind
from workers.kernels.prepared import prepared
from workers.kernels.row_order import RowOrder
from workers.layers.declared import Declared
from workers.layers.experts import is_much
from workers.layers.routing import Bags, Choices
from workers.layers.stats import RoutingStats


class ValueTable(Declared):
    """y = sum over the chosen i of w_i v_i: experts that are one value row, with no hidden unit.

    values_BGD: (N, 1, D), starting at zero (docs/recipe.md).
    reads: how many a token reads, where that is known: see `workers.layers.experts.is_much`.
    """

    by_rows = True

    def __init__(self, d_model: int, n_rows: int, *, reads: float = 0.0) -> None:
        super().__init__()
        self.values_BGD = nn.Parameter(torch.empty(n_rows, 1, d_model))
        self.tables = ("values_BGD",)
        self.spreads = is_much(reads, n_rows)
        self.factors = ("values_BGD",) if self.spreads else ()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero outputs."""
        nn.init.zeros_(self.values_BGD)

    def forward(
        self, x_TD: Tensor, routing: Choices | Bags, stats: RoutingStats | None = None
    ) -> Tensor:
        """x_TD (T, D) and weighted rows of its T tokens -> (T, D)."""
        if isinstance(routing, Choices):
            if self.spreads and stats is None and kind(x_TD) != "cpu":
                values_ND = lowered(prepared(self.values_BGD).flatten(0, 1))
                return routing.spread(len(values_ND), values_ND.dtype) @ values_ND
            routing = routing.bags
        assert routing.weight_P is not None
        weight_P = routing.weight_P.to(self.values_BGD.dtype)
        n_rows = len(self.values_BGD)
        order = RowOrder(routing.expert_P, routing.token_P, routing.start_T, n_rows)
        return row_sum(weight_P, self.values_BGD, order, self.sparse_gradients)
