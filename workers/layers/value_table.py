"""A bag of value rows: the memory of PKM (Lample et al. 2019, arXiv 1907.05242).

D model width, T tokens, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.kernels.api.rows import row_sum
from workers.kernels.row_order import RowOrder
from workers.layers.declared import Declared
from workers.layers.routing import Bags
from workers.layers.stats import RoutingStats


class ValueTable(Declared):
    """y = sum over the chosen i of w_i v_i: experts that are one value row, with no hidden unit.

    values_BGD: (N, 1, D), starting at zero (docs/recipe.md).
    """

    def __init__(self, d_model: int, n_rows: int) -> None:
        super().__init__()
        self.values_BGD = nn.Parameter(torch.empty(n_rows, 1, d_model))
        self.tables = ("values_BGD",)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero outputs."""
        nn.init.zeros_(self.values_BGD)

    def forward(self, x_TD: Tensor, routing: Bags, stats: RoutingStats | None = None) -> Tensor:
        """x_TD (T, D) and weighted bags of its T tokens -> (T, D)."""
        assert routing.weight_P is not None
        weight_P = routing.weight_P.to(self.values_BGD.dtype)
        n_rows = len(self.values_BGD)
        order = RowOrder(routing.expert_P, routing.token_P, routing.start_T, n_rows)
        return row_sum(weight_P, self.values_BGD, order, self.sparse_gradients)
