"""Top-k selection by a learned router (Switch, Mixtral, OLMoE, DeepSeekMoE, sigma-MoE).

D model width, T tokens, B experts, K choices a token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.kernels.api.choice import expert_choice
from workers.kernels.choice import Rule
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.router import Router
from workers.layers.routing import Ragged, Selected
from workers.layers.whole_batch import in_one_place, of_batch


class TopKSelection(Declared):
    """S = the k largest of p (+ bias), w = p over S, divided by their sum when `normalize`.

    p = softmax(z) or sigmoid(z). The losses are those of workers.kernels.choice.

    bias_B: (B,), DeepSeek-V3's balancing state: it moves the choice, never the weights, and each
        optimizer step ends with bias += u sign(mean load - load), of all that the step has learned
        from.
    """

    appends = True
    bias_B: Tensor

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, TopK)
        self.knobs = knobs = spec.selection
        self.choosing = Rule(knobs.k, knobs.gate == "softmax", knobs.normalize)
        self.learning = dataclasses.replace(
            self.choosing,
            balance=knobs.balance_weight,
            z=knobs.z_weight,
            entropy=knobs.entropy_weight,
            counts=knobs.bias_rate > 0,
        )
        self.router = Router(d_model, spec.n_experts)
        self.register_buffer("bias_B", torch.zeros(spec.n_experts, dtype=torch.float32))
        self.states = ("bias_B",)

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts, always: int = 0) -> Selected:
        """x_TD (T, D) -> a ragged routing and the sum of the weighted router losses.

        always: experts after the router's, which every token reads with weight 1.
        """
        z_TB = self.router(x_TD)
        rule = self.learning if self.training else self.choosing
        if always:
            rule = dataclasses.replace(rule, always=always)
        bias_B = self.bias_B.to(z_TB.dtype) if self.knobs.bias_rate else None
        chosen = expert_choice(z_TB, bias_B, rule, None if in_one_place() else of_batch)
        if chosen.load_B is not None:
            self.count_at_backward(z_TB, chosen.load_B)
        return Selected(Ragged.of(chosen.pairs, chosen.weight_P), chosen.loss)

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
