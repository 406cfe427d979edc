"""Avg-K: top-k by x . mean of the expert's keys; no learned router (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_space.design import Design, check_k
from search_space.experts import FRAME, ExpertMethod, experts, saved_reads
from search_space.prices import FLOAT, Cost, search
from search_space.routing import EVERY_EXPERT, Routing


@dataclass(frozen=True, kw_only=True)
class AvgK(ExpertMethod):
    """The k experts whose mean keys fit the token best.

    k: experts a token.
    """

    method = "avgk"
    layer = "workers.layers.avgk:AvgKSelection"
    asks = (*FRAME, "granularity", "expansion", "active_width")
    order = 4
    cuttable: ClassVar[bool] = True
    k: int = 1

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        check_k(self.k, spec)

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """The search among the mean keys, and k experts."""
        k, n = self.k, spec.n_experts
        # An engine takes the mean keys once; a step then reads them beside the chosen experts.
        means = search(d_model, n) + Cost(decode_bytes=FLOAT * d_model * n)
        cost = means + experts(spec, d_model, used=k / n)
        return cost + saved_reads(spec, d_model, k, weighted=False)

    def native(self, spec: Design) -> Routing | None:
        """The mean keys are a router's rows, and of one kept weight, divided by itself, 1 is left.

        Several kept ones would have to be 1 each, which no softmax gives.
        """
        if self.k == spec.n_experts:
            return EVERY_EXPERT
        return Routing(score="softmax", k=1, normalize=True) if self.k == 1 else None

    def nearest_native(self, spec: Design) -> Mapping[str, Any]:
        """One choice goes without a shared FFN."""
        return {"shared_width": 0} if self.k == 1 else {}
