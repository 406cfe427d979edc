"""Top-k selection by a learned router (Switch, Mixtral, OLMoE, DeepSeekMoE, sigma-MoE).

D model width, T tokens, B experts, K choices a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.kernels.api.topk import top_indices
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.router import Router
from workers.layers.routing import Ragged, Selected
from workers.layers.whole_batch import of_batch


class TopKSelection(Declared):
    """S = the k largest of p (+ bias), w = p over S, divided by their sum when `normalize`.

    p = softmax(z) or sigmoid(z).

    bias_B: (B,), DeepSeek-V3's balancing state: it moves the choice, never the weights, and each
        optimizer step ends with bias += u sign(mean load - load), of all that the step has learned
        from.
    """

    bias_B: Tensor

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, TopK)
        self.knobs = spec.selection
        self.router = Router(d_model, spec.n_experts)
        self.register_buffer("bias_B", torch.zeros(spec.n_experts, dtype=torch.float32))
        self.states = ("bias_B",)

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> a ragged routing and the sum of the weighted router losses."""
        knobs = self.knobs
        z_TB = self.router(x_TD)
        p_TB = z_TB.softmax(1) if knobs.gate == "softmax" else z_TB.sigmoid()
        score_TB = p_TB.detach() + self.bias_B if knobs.bias_rate else p_TB.detach()
        index_TK = top_indices(score_TB, knobs.k)
        weight_TK = p_TB.gather(1, index_TK)
        if knobs.normalize:
            weight_TK = weight_TK / weight_TK.sum(1, keepdim=True).clamp_min(1e-20)
        routing = Ragged.from_choices(index_TK, weight_TK, p_TB.shape[1])
        if not self.training:
            return Selected(routing)
        load_B = routing.loads.count_B(p_TB.device).to(p_TB.dtype)
        if knobs.bias_rate:
            self.count_at_backward(p_TB, load_B)
        return Selected(routing, self._loss(z_TB, p_TB, load_B))

    def linear_router(self, scored_BGD: Tensor) -> tuple[Tensor, Tensor]:
        """Its own, and the balancing bias."""
        return self.router.weight_BD, self.bias_B

    @classmethod
    def settle(cls, layers: Sequence[TopKSelection]) -> None:
        """Move each bias by the loads of its layer."""
        for layer in layers:
            if layer.counted:
                load_B = torch.stack(layer.counted).sum(0)
                layer.bias_B += layer.knobs.bias_rate * torch.sign(load_B.mean() - load_B)

    def _loss(self, z_TB: Tensor, p_TB: Tensor, load_B: Tensor) -> Tensor | None:
        knobs, terms = self.knobs, []
        if knobs.balance_weight:  # Switch eq. 4: alpha B sum_b f_b P_b
            fraction_B = of_batch(load_B / load_B.sum())
            # Sigmoid gates are brought to shares first (DeepSeek-V3 eq. 19).
            share_TB = p_TB if knobs.gate == "softmax" else p_TB / p_TB.sum(1, keepdim=True)
            share_B = of_batch(share_TB.mean(0))
            terms.append(knobs.balance_weight * load_B.numel() * (fraction_B * share_B).sum())
        if knobs.z_weight:  # ST-MoE eq. 5
            terms.append(knobs.z_weight * z_TB.logsumexp(1).square().mean())
        if knobs.entropy_weight:  # sigma-MoE eq. 20: minus the entropy of the mean choice
            mean_B = of_batch(z_TB.softmax(1).mean(0))
            terms.append(knobs.entropy_weight * torch.xlogy(mean_B, mean_B).sum())
        return torch.stack(terms).sum() if terms else None
