"""Straight-through: sigmoid gates with a threshold (DSMoE, Lv et al. 2025, 2502.12455)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_space.design import Chosen, Design, Method, flag, need, weight
from search_space.domain import Choices, Domain, Numbers, Range
from search_space.experts import FRAME, ExpertMethod, experts, saved_full
from search_space.parameter import Knobs, asked, keys
from search_space.prices import Cost, matrix, saved

EXPECTED_ACTIVITY = 0.5  # of gates before any were measured: sigmoids start at 1/2

# Each range holds the published value, tau 0.5 and lambda 1.
_THRESHOLDS = Range(low=0.2, high=0.8)
_SPARSITY_WEIGHTS = Range(low=0.01, high=1.0, log=True)


@dataclass(frozen=True, kw_only=True)
class StraightThroughKnobs(Knobs):
    """Of `StraightThrough`.

    expansion: total width / active width at the activity hoped for; of `match: free` alone, as
        the gates decide the activity. A matched design is priced at EXPECTED_ACTIVITY.
    """

    method = "straight_through"
    expansion: Numbers = asked(
        (1.0, 2.0), "total / active width hoped for", match=("free",), shape=True, least=1
    )
    tau: Domain = asked(_THRESHOLDS, "threshold of the gates")
    sparsity_weight: Domain = asked(_SPARSITY_WEIGHTS, "sparsity loss, lambda")
    renormalize: Choices = asked((True, False), "scale by experts / open experts")


@dataclass(frozen=True, kw_only=True)
class StraightThrough(ExpertMethod):
    """The experts whose gates are above a threshold.

    G(p) = p if p > tau else 0; training uses stop(G) + p - stop(p). Dense in training,
    ragged in inference; a token with every gate shut keeps the expert of highest p (ours).

    tau: the threshold, in [0, 1).
    sparsity_weight: lambda of lambda * mean G(p).
    renormalize: scale by n_experts / number of open experts.
    """

    method = "straight_through"
    layer = "workers.layers.straight_through:StraightThroughSelection"
    asks = (*FRAME, "granularity", *keys(StraightThroughKnobs), "active_width")
    knobs = StraightThroughKnobs
    order = 7
    cuttable: ClassVar[bool] = True
    tau: float = 0.5
    sparsity_weight: float = 1.0
    renormalize: bool = True

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        weight("tau", self.tau)
        need(self.tau < 1, f"tau is a threshold on a sigmoid, in [0, 1): got {self.tau}")
        weight("sparsity_weight", self.sparsity_weight)
        flag("renormalize", self.renormalize)

    @property
    def rate_factor(self) -> float:
        """Lower rates than the rule's are better, by measurement."""
        return 0.75

    @property
    def notes(self) -> list[str]:
        """How strongly gates are pressed shut."""
        return [f"lambda={self.sparsity_weight:g}"]

    @classmethod
    def expansion(cls, chosen: Chosen) -> float:
        """The one hoped for."""
        return float(chosen.params.get("straight_through.expansion", 1.0))

    @classmethod
    def select(cls, chosen: Chosen) -> Method:
        """Nothing follows from the ratios."""
        return StraightThrough(**cls.own(chosen))

    def reads(self, spec: Design) -> float:
        """As expected before any were measured."""
        return EXPECTED_ACTIVITY * spec.n_experts

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """The gates, and all experts in training."""
        used = EXPECTED_ACTIVITY if activity is None else activity
        used = max(used, 1 / spec.n_experts)
        cost = matrix(d_model, spec.n_experts) + experts(spec, d_model, used=used, trained=1.0)
        return cost + saved(spec.n_experts) + saved_full(spec, d_model, weighted=True)
