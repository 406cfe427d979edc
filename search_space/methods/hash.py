"""Hash: fixed tables from token id to expert (Roller et al. 2021); no gate, no auxiliary loss."""

from __future__ import annotations

from dataclasses import dataclass

from search_space.design import Design, check_k, flag, whole
from search_space.domain import Choices
from search_space.experts import FRAME, ExpertMethod, experts, saved_reads
from search_space.parameter import Knobs, asked, keys
from search_space.prices import Cost
from search_space.routing import EVERY_EXPERT, Routing


@dataclass(frozen=True, kw_only=True)
class HashKnobs(Knobs):
    """Of `Hash`; k is the space's granularity."""

    method = "hash"
    balanced: Choices = asked((True, False), "tables by token frequency, or random")
    seed: Choices = asked((0,), "of the tables")


@dataclass(frozen=True, kw_only=True)
class Hash(ExpertMethod):
    """One expert from each of k tables.

    k: tables.
    balanced: fill the tables by token frequency in the training split; else at random.
    seed: of the tables.
    """

    method = "hash"
    layer = "workers.layers.hash:HashSelection"
    asks = (*FRAME, "granularity", "expansion", *keys(HashKnobs), "active_width")
    knobs = HashKnobs
    needs_vocabulary = True
    order = 3
    k: int = 1
    balanced: bool = True
    seed: int = 0

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        check_k(self.k, spec)
        flag("balanced", self.balanced)
        whole("seed", self.seed, least=0)

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """k experts; a look-up costs nothing."""
        k = self.k
        cost = experts(spec, d_model, used=k / spec.n_experts)
        return cost + saved_reads(spec, d_model, k, weighted=False)

    def native(self, spec: Design) -> Routing | None:
        """Of one expert there is nothing to pick; else no class knows tables."""
        return EVERY_EXPERT if spec.n_experts == 1 else None
