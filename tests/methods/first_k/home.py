"""First-k: every token reads the first k experts, whatever it says."""

from __future__ import annotations

from dataclasses import dataclass

from search_space.design import Design, check_k, weight
from search_space.domain import Domain, Range
from search_space.experts import FRAME, ExpertMethod, experts, saved_reads
from search_space.parameter import Knobs, asked, keys
from search_space.prices import Cost


@dataclass(frozen=True, kw_only=True)
class FirstKKnobs(Knobs):
    """Of `FirstK`; k is the space's granularity."""

    method = "first_k"
    scale: Domain = asked(Range(low=0.5, high=2.0, log=True), "weight of each expert")


@dataclass(frozen=True, kw_only=True)
class FirstK(ExpertMethod):
    """The k first experts, each with the same weight.

    k: experts a token.
    scale: their weight.
    """

    method = "first_k"
    layer = "first_k.layer:FirstKLayer"
    asks = (*FRAME, "granularity", "expansion", *keys(FirstKKnobs), "active_width")
    knobs = FirstKKnobs
    k: int = 1
    scale: float = 1.0

    def validate(self, spec: Design) -> None:
        """A k that there is, and a weight of at least 0."""
        check_k(self.k, spec)
        weight("scale", self.scale)

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """k experts; choosing them costs nothing."""
        cost = experts(spec, d_model, used=self.k / spec.n_experts)
        return cost + saved_reads(spec, d_model, self.k, weighted=True)
