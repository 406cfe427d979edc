"""Direct selection: every hidden unit is scored (VanillaM of Liu et al. 2023, arXiv 2305.13999).

D model width, T tokens, N hidden units, K choices a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search_space.methods.direct import Direct
from search_space.spec import FFNSpec
from workers.kernels.api.topk import top_indices
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.routing import Choices, Selected


class DirectSelection(Declared):
    """S = top-k of the pre-activations x . K_i (x . G_i when gated: ours), w = 1.

    No parameters and no loss. All N units are scored without gradient; what follows, backward
    included, reads the k rows alone.
    """

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, Direct)
        self.k = spec.selection.k

    @torch.no_grad()
    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> bags of weight one that carry their pre-activations."""
        score_TN = x_TD @ experts(x_TD, None).flatten(0, 1).t()
        index_TK = top_indices(score_TN, self.k, ordered=False)
        score_TK = score_TN.gather(1, index_TK)
        return Selected(Choices(index_TK, None, score_TK, distinct=self.k))
