"""The knobs of each selection method that a search space may turn."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from search_space import spec as specs
from search_space.checks import DIM, is_whole
from search_space.domain import (
    Choices,
    Domain,
    Numbers,
    Range,
    Trial,
    ask,
    check_each,
    check_from,
    read_domain,
)
from search_space.errors import require
from search_space.spec import Dense, FFNSpec, ProductKey, ReLURouting, Selection

# Each holds the published value (tau 0.5, lambda 1, alpha 0.01, beta, gamma and u 0.001); a loss's
# weight can be 0, which turns it off.
_THRESHOLDS = Range(low=0.2, high=0.8)
_SPARSITY_WEIGHTS = Range(low=0.01, high=1.0, log=True)
_BALANCE_WEIGHTS = Range(low=0.0, high=0.03)
_SMALL_WEIGHTS = Range(low=0.0, high=0.003)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The choices that only one method has; the fields of its Selection by name.

    fixed: what the Selection needs beside a knob for that knob to be judged alone.
    ratios: knobs that are no value of the Selection but lead to one.
    """

    selection: ClassVar[type[Selection]] = Dense
    fixed: ClassVar[dict[str, Any]] = {}
    ratios: ClassVar[tuple[str, ...]] = ("expansion",)

    def __post_init__(self) -> None:
        method = self.selection.method
        for f in dataclasses.fields(self):
            where = f"space.{method}.{f.name}"
            domain = read_domain(where, getattr(self, f.name), str(f.type))
            object.__setattr__(self, f.name, domain)
            if f.name not in self.ratios:
                check_each(where, domain, functools.partial(self._probe, f.name))
        check_from(f"space.{method}.expansion", getattr(self, "expansion", ()), 1)

    def _probe(self, name: str, value: Any) -> FFNSpec:
        # As many experts as any k needs, so that only the knob itself can be at fault.
        n_experts = value**2 if name == "k" and is_whole(value, 1, DIM) else 256
        selection = self.selection(**{**self.fixed, name: value})
        return FFNSpec(d_ff=n_experts, expert_width=1, selection=selection)

    def ask(self, trial: Trial, *names: str) -> dict[str, Any]:
        """Ask for the knobs named, under the names `method.knob`."""
        method = self.selection.method
        return {name: ask(trial, f"{method}.{name}", getattr(self, name)) for name in names}


@dataclass(frozen=True, kw_only=True)
class TopKKnobs(Knobs):
    """Of `TopK`; k is the space's granularity."""

    selection: ClassVar[type[Selection]] = specs.TopK
    fixed: ClassVar[dict[str, Any]] = {"k": 2}
    gate: Choices = ("softmax", "sigmoid")
    normalize: Choices = (False, True)
    balance_weight: Domain = _BALANCE_WEIGHTS
    z_weight: Domain = _SMALL_WEIGHTS
    entropy_weight: Domain = _SMALL_WEIGHTS
    bias_rate: Domain = _SMALL_WEIGHTS


@dataclass(frozen=True, kw_only=True)
class HashKnobs(Knobs):
    """Of `Hash`; k is the space's granularity."""

    selection: ClassVar[type[Selection]] = specs.Hash
    balanced: Choices = (True, False)
    seed: Choices = (0,)


@dataclass(frozen=True, kw_only=True)
class StraightThroughKnobs(Knobs):
    """Of `StraightThrough`.

    expansion: total width / active width at the activity hoped for; of `match: free` alone, as
    the gates decide the activity. A matched design is priced at the activity `cost` expects.
    """

    selection: ClassVar[type[Selection]] = specs.StraightThrough
    expansion: Numbers = (1.0, 2.0)
    tau: Domain = _THRESHOLDS
    sparsity_weight: Domain = _SPARSITY_WEIGHTS
    renormalize: Choices = (True, False)


@dataclass(frozen=True, kw_only=True)
class ReLURoutingKnobs(Knobs):
    """Of `ReLURouting`; target_activity is 1 / the space's expansion."""

    selection: ClassVar[type[Selection]] = ReLURouting
    l1_start: Domain = (1e-8,)
    l1_factor: Domain = (1.2,)


@dataclass(frozen=True, kw_only=True)
class ProductKeyKnobs(Knobs):
    """Of `ProductKey`; heads and k are numbers, as in the papers, whatever the reference width is.

    expansion: number of experts / (heads * k), rounded to a square.  key_dim: width of a query /
    d_model (PKM has a half), rounded down to an even number.  expert_width: of `values: peer`.
    `match: active_flops` derives k and does not ask for it; `match: total_params` derives the
    number of experts and does not ask for expansion.
    """

    selection: ClassVar[type[Selection]] = ProductKey
    ratios: ClassVar[tuple[str, ...]] = ("expansion", "key_dim", "expert_width")
    heads: Choices = (4, 8)
    k: Choices = (8, 16, 32)
    expansion: Numbers = (8.0, 32.0)
    key_dim: Numbers = (0.25, 0.5)
    expert_width: Choices = (1, 4)
    gate: Choices = ("softmax", "sigmoid")
    query_norm: Choices = ("batch", "layer", "none")
    values: Choices = ("peer", "pkm")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_from("space.product_key.expert_width", self.expert_width, 1, whole=True)
        for ratio in self.key_dim:
            require(
                0 < ratio <= 8,
                f"space.product_key.key_dim is a ratio of d_model in (0, 8]: got {ratio:g}; "
                "0.5 is PKM's",
            )


KNOBS: dict[str, type[Knobs]] = {
    cls.selection.method: cls
    for cls in (TopKKnobs, HashKnobs, StraightThroughKnobs, ReLURoutingKnobs, ProductKeyKnobs)
}
