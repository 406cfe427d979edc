"""Top-k: a learned router keeps k experts (Switch, Mixtral, OLMoE, DeepSeekMoE, sigma-MoE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_space.design import Design, Gate, check_k, flag, need, one_of, weight
from search_space.domain import Choices, Domain, Range
from search_space.experts import FRAME, ExpertMethod, experts, saved_reads
from search_space.parameter import Condition, Knobs, asked, keys
from search_space.prices import INDEX, Cost, matrix, saved
from search_space.routing import Routing

# Each range holds the published value (alpha 0.01; beta, gamma and u 0.001); 0 turns a loss off.
_SMALL = Range(low=0.0, high=0.003)
# One weight divided by itself would starve the router of gradient.
_SEVERAL = Condition("granularity above 1", lambda chosen: chosen["granularity"] > 1)


@dataclass(frozen=True, kw_only=True)
class TopKKnobs(Knobs):
    """Of `TopK`; k is the space's granularity."""

    method = "topk"
    fixed: ClassVar[dict[str, Any]] = {"k": 2}
    gate: Choices = asked(("softmax", "sigmoid"), "weights from the router's logits")
    balance_weight: Domain = asked(Range(low=0.0, high=0.03), "load-balancing loss, alpha")
    z_weight: Domain = asked(_SMALL, "router z-loss, beta")
    entropy_weight: Domain = asked(_SMALL, "entropy regulariser, gamma")
    bias_rate: Domain = asked(_SMALL, "bias balancing, u")
    normalize: Choices = asked((False, True), "weights sum to 1", when=_SEVERAL)


@dataclass(frozen=True, kw_only=True)
class TopK(ExpertMethod):
    """The k experts of the largest gates.

    k: experts a token.
    gate: softmax or sigmoid of the router's logits.
    normalize: divide the kept weights by their sum (illegal with k = 1: no gradient).
    balance_weight: alpha of Switch's alpha * B * sum_b f_b P_b.
    z_weight: beta of beta * mean(logsumexp(z)^2).
    entropy_weight: gamma of sigma-MoE's sum p log p over the batch mean of softmax(z).
    bias_rate: u of DeepSeek-V3's bias balancing; 0 turns it off.
    """

    method = "topk"
    layer = "workers.layers.topk:TopKSelection"
    asks = (*FRAME, "granularity", "expansion", *keys(TopKKnobs), "active_width")
    knobs = TopKKnobs
    order = 2
    cuttable: ClassVar[bool] = True
    k: int = 1
    gate: Gate = "softmax"
    normalize: bool = False
    balance_weight: float = 0.0
    z_weight: float = 0.0
    entropy_weight: float = 0.0
    bias_rate: float = 0.0

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        check_k(self.k, spec)
        one_of("gate", self.gate, Gate)
        flag("normalize", self.normalize)
        need(
            not (self.normalize and self.k == 1),
            "normalize needs k of at least 2: with k = 1 every weight is 1 and the router "
            "gets no gradient; set normalize: false",
        )
        for name in ("balance_weight", "z_weight", "entropy_weight", "bias_rate"):
            weight(name, getattr(self, name))

    @property
    def rate_factor(self) -> float:
        """Lower rates than the rule's are better, by measurement."""
        return 0.8

    @property
    def notes(self) -> list[str]:
        """The gate, when it is not the common one."""
        return ["sigmoid"] if self.gate == "sigmoid" else []

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """The router and k experts."""
        k, n = self.k, spec.n_experts
        router = matrix(d_model, n) + saved(n + INDEX * k)
        cost = router + experts(spec, d_model, used=k / n)
        return cost + saved_reads(spec, d_model, k, weighted=True)

    def native(self, spec: Design) -> Routing:
        """As it is."""
        bias = self.bias_rate > 0
        return Routing(score=self.gate, k=self.k, normalize=self.normalize, bias=bias)

    def nearest_native(self, spec: Design) -> Mapping[str, Any]:
        """Sigmoid weights go with a bias and a shared FFN, softmax with neither."""
        if spec.n_experts == 1:
            softmax = dataclasses.replace(self, gate="softmax", bias_rate=0.0)
            return {"selection": softmax, "shared_width": 0}
        wants = self.bias_rate or spec.shared_width
        return {"selection": dataclasses.replace(self, gate="sigmoid")} if wants else {}

    @classmethod
    def learned(cls, k: int) -> TopK:
        """Weights that sum to 1, where there are several."""
        return cls(k=k, normalize=k > 1)
