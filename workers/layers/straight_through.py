"""Sigmoid gates with a threshold and straight-through gradients (DSMoE, arXiv 2502.12455).

D model width, T tokens, B experts.
"""

from __future__ import annotations

from torch import Tensor

from search_space.methods.straight_through import StraightThrough
from search_space.spec import FFNSpec
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
        self.knobs = spec.selection
        self.router = Router(d_model, spec.n_experts)

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> a full routing in training, that of the open pairs in evaluation."""
        knobs = self.knobs
        p_TB = self.router(x_TD).sigmoid()
        above_TB = p_TB.detach() > knobs.tau
        shut_T1 = ~above_TB.any(1, keepdim=True)
        best_T1 = p_TB.detach().argmax(1, keepdim=True)
        open_TB = above_TB.scatter(1, best_T1, above_TB.gather(1, best_T1) | shut_T1)
        weight_TB = p_TB * open_TB
        loss = None
        if self.training:
            weight_TB = straight_through(weight_TB, p_TB)
            if knobs.sparsity_weight:
                loss = knobs.sparsity_weight * straight_through(p_TB * above_TB, p_TB).mean()
        if knobs.renormalize:
            weight_TB = weight_TB * (p_TB.shape[1] / open_TB.sum(1, keepdim=True, dtype=p_TB.dtype))
        if self.training:
            return Selected(Full(weight_TB), loss)
        return Selected(open_pairs(weight_TB, open_TB))


def straight_through(value_TB: Tensor, p_TB: Tensor) -> Tensor:
    """The value of the one with the gradient of the other."""
    return value_TB.detach() + p_TB - p_TB.detach()
