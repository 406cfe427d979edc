"""What a layer can tell about its routing.

T tokens, B experts, P pairs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from workers.layers.routing import Bags, Choices, Full, Open, Ragged, Routing

NEAR_ZERO = 0.1  # a hidden activation below this size counts as near zero (ours)


class RoutingStats:
    """Sums over the tokens seen by one sub-layer."""

    def __init__(self, n_experts: int) -> None:
        self.n_experts = n_experts
        self.tokens = 0
        self.load_B = torch.zeros(n_experts, dtype=torch.float64)
        self.weight_B = torch.zeros(n_experts, dtype=torch.float64)
        self.near_zero = 0
        self.hidden = 0

    def add_routing(self, routing: Routing, n_tokens: int) -> None:
        """Count how often, and with what weight, each expert is read."""
        self.tokens += n_tokens
        if isinstance(routing, Full):
            ones_B = torch.full((self.n_experts,), float(n_tokens), dtype=torch.float64)
            self.load_B += ones_B
            weight_TB = routing.weight_TB
            self.weight_B += (
                ones_B if weight_TB is None else weight_TB.detach().cpu().double().sum(0)
            )
            return
        if isinstance(routing, Open):
            routing = Ragged.from_open(routing.weight_TB, routing.open_TB)
        if isinstance(routing, Choices):
            routing = routing.bags
        if isinstance(routing, Ragged):
            routing = routing.exact()
        expert_P = routing.expert_P if isinstance(routing, Bags) else routing.pair_experts()
        expert_P = expert_P.cpu()
        counts_B = torch.bincount(expert_P, minlength=self.n_experts).double()
        self.load_B += counts_B
        if routing.weight_P is None:
            self.weight_B += counts_B
        else:
            self.weight_B.index_add_(0, expert_P, routing.weight_P.detach().cpu().double())

    def add_hidden(self, hidden: Tensor) -> None:
        """Count near-zero activations of the units that were computed."""
        self.near_zero += int((hidden.detach().abs() < NEAR_ZERO).sum())
        self.hidden += hidden.numel()

    def summary(self) -> dict[str, Any]:
        """What was seen, by name.

        active: share of experts read a token.
        load: share of reads by expert.
        usage: share of experts ever read.
        unevenness: log B + sum z log z of the weights' shares z (PEER, arXiv 2407.04153; 0 is
            even).
        near_zero: share of activations below 0.1, those of a shared FFN included.
        """
        share_B = self.weight_B.abs() / self.weight_B.abs().sum().clamp_min(1e-300)
        load_B = self.load_B / self.load_B.sum().clamp_min(1)
        return {
            "active": float(self.load_B.sum()) / max(1, self.tokens * self.n_experts),
            "load": [round(v, 6) for v in load_B.tolist()],
            "usage": float((self.load_B > 0).double().mean()),
            "unevenness": math.log(self.n_experts) + float(torch.xlogy(share_B, share_B).sum()),
            "near_zero": self.near_zero / max(1, self.hidden),
        }
