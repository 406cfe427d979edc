"""Sigmoid gates with a threshold and straight-through gradients (DSMoE, arXiv 2502.12455).

D model width, T tokens, B experts.
"""

from __future__ import annotations

from torch import Tensor

from search_space.methods.straight_through import StraightThrough
from search_space.spec import FFNSpec
from workers.kernels.api.gates import threshold_gates
from workers.kernels.choice import Threshold
from workers.kernels.torch.gates import above_and_open, scaled
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.router import Router
from workers.layers.routing import Full, Selected, open_pairs


class StraightThroughSelection(Declared):
    """p = sigmoid(x Y), G(p) = p if p > tau else 0, w = B / #open * G(p).

    In training w has the value of G and the gradient of p (S = stop(G) + p - stop(p)), so every
    expert is computed and a shut gate still learns. In evaluation only the open pairs are. A token
    with every gate shut opens the expert of highest p (ours). The loss is lambda * mean S(p)
    (ours: through S, else it has no gradient below tau); a shut gate counts as 0 there, whether
    its expert was opened or not.
    """

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, StraightThrough)
        knobs = spec.selection
        self.rule = Threshold(knobs.tau, knobs.renormalize, knobs.sparsity_weight)
        self.router = Router(d_model, spec.n_experts)

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> a full routing in training, that of the open pairs in evaluation."""
        z_TB = self.router(x_TD)
        if self.training:
            weight_TB, loss = threshold_gates(z_TB, self.rule)
            return Selected(Full(weight_TB), loss)
        p_TB = z_TB.sigmoid()
        _, open_TB = above_and_open(p_TB, self.rule)
        return Selected(open_pairs(scaled(p_TB * open_TB, open_TB, self.rule), open_TB))
