"""ReLU routing with an adaptive L1 penalty (ReMoE, arXiv 2412.14711).

D model width, T tokens, B experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search_space.spec import FFNSpec, ReLURouting
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.router import Router
from workers.layers.routing import Ragged, Selected

LEAST, MOST = 1e-30, 1e30  # the coefficient stays a normal float32 however long it moves one way


class ReLURoutingSelection(Declared):
    """w = relu(x W_r), S = {b: w_b > 0}; a token with no open expert gets zero from them.

    The loss is l1_coefficient * mean of w over tokens and experts (ours: the mean over experts,
    so that the penalty does not grow with their number). Each training forward ends with
    coefficient *= l1_factor ^ sign(share of open pairs - target_activity).
    """

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, ReLURouting)
        self.knobs = spec.selection
        self.router = Router(d_model, spec.n_experts)
        self.register_buffer("l1_coefficient", torch.tensor(self.knobs.l1_start))
        self.training_activity = self.knobs.target_activity

    def carried(self) -> dict[str, float]:
        """The activity, which prices the next step."""
        return {"training_activity": self.training_activity}

    def carry(self, numbers: dict[str, float]) -> None:
        """Price the next step as if this layer had just run."""
        self.training_activity = numbers["training_activity"]

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> a ragged routing, and in training the penalty."""
        weight_TB = self.router(x_TD).relu()
        open_TB = weight_TB.detach() > 0
        routing = Ragged.from_open(weight_TB, open_TB)
        if not self.training:
            return Selected(routing)
        loss = self.l1_coefficient.clone() * weight_TB.mean()
        with torch.no_grad():
            self.training_activity = float(open_TB.double().mean())
            target = self.knobs.target_activity
            direction = (self.training_activity > target) - (self.training_activity < target)
            self.l1_coefficient.mul_(self.knobs.l1_factor**direction).clamp_(LEAST, MOST)
        return Selected(routing, loss)
