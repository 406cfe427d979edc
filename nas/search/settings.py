"""The sections of a study's file that steer its search: bounds, budget, repeats, which sampler."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from nas.search.bounds import absolute
from nas.search.rungs import MOST_RUNGS, levels
from search_space.backbone import Backbone
from search_space.checks import real, section, whole
from search_space.cost import model_cost
from search_space.errors import require
from search_space.spec import FFNSpec

SamplerKind = Literal["tpe", "random", "nsga2"]
MOST_TRIALS = 1_000_000  # every ask reads all that were tried; the store numbers 2**31
MOST_SHARE, MOST_SEEDS = 0.9, 1_000


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Upper bounds as ratios of the model with the reference dense FFN; None is no bound.

    active_flops: forward FLOPs a token in inference.
    total_params: parameters.
    training_flops: forward and backward FLOPs a token.
    """

    active_flops: float | None = None
    total_params: float | None = None
    training_flops: float | None = None

    def __post_init__(self) -> None:
        for name, ratio in self.ratios().items():
            real(f"constraints.{name}", ratio, above=0)

    def ratios(self) -> dict[str, float]:
        """The bounds that are set."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: ratio for name, ratio in given.items() if ratio is not None}

    def limits(self, backbone: Backbone) -> dict[str, float]:
        """The bounds in FLOPs a token and parameters."""
        return absolute(self.ratios(), backbone)

    def violations(self, spec: FFNSpec, backbone: Backbone) -> dict[str, float]:
        """Priced cost / limit - 1 by name: at most 0 where the bound is kept."""
        limits = self.limits(backbone)
        if not limits:
            return {}
        cost = model_cost(spec, backbone)
        return {name: getattr(cost, name) / limit - 1 for name, limit in limits.items()}

    def broken(self, spec: FFNSpec, backbone: Backbone) -> str:
        """The bound that `spec` breaks most, in words; empty when it keeps them all."""
        violations = self.violations(spec, backbone)
        worst = max(violations, key=lambda name: violations[name], default="")
        if not worst or violations[worst] <= 0:
            return ""
        bound = self.ratios()[worst]
        return (
            f"{worst} is {bound * (1 + violations[worst]):.3g} x the reference's, above {bound:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Further seeds of the designs that are best, or within noise of it.

    share: of the study's FLOPs, at most.
    seeds: trainings of one design, at most.
    """

    share: float = 0.0
    seeds: int = 3

    def __post_init__(self) -> None:
        real("budget.repeats.share", self.share, least=0)
        require(
            self.share <= MOST_SHARE,
            f"budget.repeats.share is a share of the study's FLOPs, at most {MOST_SHARE:g}, so "
            f"that most goes into the search: got {self.share:g}",
        )
        whole("budget.repeats.seeds", self.seeds, 2, MOST_SEEDS)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a study may spend.

    trials: designs that are tried.
    trial_flops: training FLOPs of one that reaches the top rung.
    flops: of the whole study; 0 means what so many trials are expected to cost.
    rungs: levels at which runs are compared, trial_flops / reduction^i; 1 trains every design to
        the top.
    reduction: one in so many goes on to the next rung.
    repeats: further seeds.
    """

    trials: int
    trial_flops: float
    flops: float = 0.0
    rungs: int = 1
    reduction: float = 3.0
    repeats: Repeats = field(default_factory=Repeats)

    def __post_init__(self) -> None:
        whole("budget.trials", self.trials, 1, MOST_TRIALS)
        real("budget.trial_flops", self.trial_flops, above=0)
        real("budget.flops", self.flops, least=0)
        whole("budget.rungs", self.rungs, 1, MOST_RUNGS)
        real("budget.reduction", self.reduction, above=1)
        if not isinstance(self.repeats, Repeats):
            object.__setattr__(self, "repeats", section(Repeats, "budget.repeats", self.repeats))
        for name in ("trial_flops", "flops", "reduction"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def levels(self) -> tuple[float, ...]:
        """FLOPs of a run at each rung, ascending."""
        return levels(self.trial_flops, self.rungs, self.reduction)
