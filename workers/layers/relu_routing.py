"""ReLU routing with an adaptive L1 penalty (ReMoE, arXiv 2412.14711).

D model width, T tokens, B experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search_space.methods.relu_routing import ReLURouting
from search_space.spec import FFNSpec
from workers.kernels.api.relu_choice import relu_choice
from workers.kernels.place import kind
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.router import Router
from workers.layers.routing import Ragged, Selected, open_pairs

LEAST, MOST = 1e-30, 1e30  # the coefficient stays a normal float32 however long it moves one way


class ReLURoutingSelection(Declared):
    """w = relu(x W_r), S = {b: w_b > 0}; a token with no open expert gets zero from them.

    The loss is l1_coefficient * mean of w over tokens and experts (ours: the mean over experts,
    so that the penalty does not grow with their number, and without the paper's weights by load).
    As in the paper there is one coefficient: each layer holds the same. Each optimizer step ends
    with coefficient *= l1_factor ^ sign(share of open pairs - target_activity), the share being of
    all layers, so that they divide the activity among them.

    The paper starts at 1e-8, which is 100 steps at 1.2 from where the penalty is felt: nothing in
    its 60,000, all of a short run. Ours: a run starts where the coefficient is 1 when the warmup
    ends, or at l1_start if that is more. The warmup is what a run knows of its length without
    knowing at which rung it will end.
    """

    l1_coefficient: Tensor
    training_activity: Tensor

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, ReLURouting)
        self.knobs = spec.selection
        self.router = Router(d_model, spec.n_experts)
        start = torch.tensor(self.knobs.l1_start, dtype=torch.float32)
        self.register_buffer("l1_coefficient", start)
        self.states = ("l1_coefficient",)
        # A number that lies where the weights do: only who needs it on the host waits for it.
        self.training_activity = torch.tensor(self.knobs.target_activity, dtype=torch.float64)

    def begin_run(self, warmup: int) -> None:
        """Start where l1_factor a step leads to 1 when the warmup ends, at l1_start or above."""
        start = max(self.knobs.l1_start, self.knobs.l1_factor**-warmup)
        self.l1_coefficient.fill_(min(max(start, LEAST), MOST))

    def carried(self) -> dict[str, float]:
        """The activity, which prices the next step."""
        return {"training_activity": float(self.training_activity)}

    def carry(self, numbers: dict[str, float]) -> None:
        """Price the next step as if this layer had just run."""
        self.training_activity = torch.tensor(numbers["training_activity"], dtype=torch.float64)

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> a ragged routing, and in training the penalty."""
        z_TB = self.router(x_TD)
        if self.training and kind(z_TB) != "cpu" and experts.takes_room:
            chosen = relu_choice(z_TB, self.l1_coefficient)
            n_open = chosen.pairs.loads.end_B(z_TB.device)[-1]
            self.count_at_backward(z_TB, (n_open, z_TB.numel()))
            return Selected(Ragged.of(chosen.pairs, chosen.weight_P), chosen.loss)
        weight_TB = z_TB.relu()
        open_TB = weight_TB.detach() > 0
        routing = open_pairs(weight_TB, open_TB)
        if not self.training:
            return Selected(routing)
        self.count_at_backward(weight_TB, (open_TB.sum(), open_TB.numel()))
        return Selected(routing, self.l1_coefficient.clone() * weight_TB.mean())

    @classmethod
    def settle(cls, layers: Sequence[ReLURoutingSelection]) -> None:
        """Note each layer's activity, and move the one coefficient by their mean."""
        seen = [layer for layer in layers if layer.counted]
        for layer in seen:
            n_open, n_pairs = (sum(part) for part in zip(*layer.counted, strict=True))
            layer.training_activity = n_open.double() / n_pairs
        first, *others = [layer.training_activity for layer in seen]
        activity = sum(others, first) / len(seen)
        for layer in layers:
            target, factor = layer.knobs.target_activity, layer.knobs.l1_factor
            falls = torch.where(activity < target, 1 / factor, 1.0)
            move = torch.where(activity > target, factor, falls)
            layer.l1_coefficient.mul_(move.to(layer.l1_coefficient)).clamp_(LEAST, MOST)
