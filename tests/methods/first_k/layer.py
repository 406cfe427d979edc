"""First-k selection. T tokens, D model width, K choices a token."""

from __future__ import annotations

import torch
from torch import Tensor

from search_space.spec import FFNSpec
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.routing import Ragged, Selected

from .home import FirstK


class FirstKLayer(Declared):
    """S = the experts 0 to k - 1, w = scale. No parameters and no loss."""

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, FirstK)
        self.knobs, self.n_experts = spec.selection, spec.n_experts

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> the same K experts for every token."""
        index_TK = torch.arange(self.knobs.k, device=x_TD.device).expand(len(x_TD), -1)
        weight_TK = torch.full_like(index_TK, self.knobs.scale, dtype=x_TD.dtype)
        return Selected(Ragged.from_choices(index_TK, weight_TK, self.n_experts))
