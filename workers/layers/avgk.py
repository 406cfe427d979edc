"""Avg-K selection: experts picked by the mean of their keys (Liu et al. 2023, arXiv 2305.13999).

D model width, T tokens, B experts, K choices a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search_space.methods.avgk import AvgK
from search_space.spec import FFNSpec
from workers.kernels.api.topk import top_indices
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.routing import Ragged, Selected


class AvgKSelection(Declared):
    """e_b = mean of the rows of K_b (of G_b when gated: ours), S = top-k of x . e_b, w = 1.

    No parameters and no loss. The choice carries no gradient. The means are taken once a forward,
    from the live weights.
    """

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, AvgK)
        self.k = spec.selection.k

    @torch.no_grad()
    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> a ragged routing of weight one."""
        mean_BD, _ = self.linear_router(experts(x_TD, None))
        index_TK = top_indices(x_TD @ mean_BD.t(), self.k)
        return Selected(Ragged.from_choices(index_TK, None, len(mean_BD)))

    def linear_router(self, scored_BGD: Tensor) -> tuple[Tensor, None]:
        """The means, (B, D), and no bias."""
        return scored_BGD.mean(1), None
