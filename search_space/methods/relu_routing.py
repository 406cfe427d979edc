"""ReLU routing: w = relu(x W_r), held to a target by an L1 penalty (ReMoE, 2412.14711)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_space.design import Chosen, Design, Method, need, weight
from search_space.domain import Domain
from search_space.experts import FRAME, ExpertMethod, experts, saved_reads
from search_space.parameter import Knobs, asked, keys
from search_space.prices import INDEX, Cost, matrix, saved


@dataclass(frozen=True, kw_only=True)
class ReLURoutingKnobs(Knobs):
    """Of `ReLURouting`; target_activity is 1 / the space's expansion."""

    method = "relu_routing"
    l1_start: Domain = asked((1e-8,), "first coefficient of the L1 penalty")
    l1_factor: Domain = asked((1.2,), "its step up or down")


@dataclass(frozen=True, kw_only=True)
class ReLURouting(ExpertMethod):
    """The experts whose weights are above 0.

    target_activity: share of experts that should be active.
    l1_start: the penalty's first coefficient.
    l1_factor: its step up or down. A run starts where l1_factor a step leads to 1 when its warmup
        ends, if that is above l1_start (ours).
    """

    method = "relu_routing"
    layer = "workers.layers.relu_routing:ReLURoutingSelection"
    asks = (*FRAME, "granularity", "expansion", *keys(ReLURoutingKnobs), "active_width")
    knobs = ReLURoutingKnobs
    order = 8
    cuttable: ClassVar[bool] = True
    target_activity: float = 0.25
    l1_start: float = 1e-8
    l1_factor: float = 1.2

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        weight("target_activity", self.target_activity)
        need(
            0 < self.target_activity <= 1,
            f"target_activity is a share in (0, 1]: got {self.target_activity}",
        )
        weight("l1_start", self.l1_start)
        weight("l1_factor", self.l1_factor)
        need(self.l1_start > 0, f"l1_start must be above 0: got {self.l1_start}")
        need(self.l1_factor > 1, f"l1_factor must be above 1: got {self.l1_factor}")

    @classmethod
    def select(cls, chosen: Chosen) -> Method:
        """The target follows from the expansion."""
        return ReLURouting(target_activity=1 / chosen["expansion"], **cls.own(chosen))

    def reads(self, spec: Design) -> float:
        """As many as should be active."""
        return spec.n_experts * self.target_activity

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """The router, and the experts that are active as measured, or as they should be."""
        used = self.target_activity if activity is None else activity
        cost = matrix(d_model, spec.n_experts) + experts(spec, d_model, used=used)
        reads = used * spec.n_experts
        cost += saved(spec.n_experts + INDEX * reads)
        return cost + saved_reads(spec, d_model, reads, weighted=True)
