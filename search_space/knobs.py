"""The knobs of each selection method that a search space may turn."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from search_space import spec as specs
from search_space.domain import (
    Choices,
    Domain,
    Numbers,
    Range,
    Trial,
    ask,
    check_each,
    check_from,
    ends,
    read_domain,
)
from search_space.spec import Dense, FFNSpec, ProductKey, ReLURouting, Selection

# From too weak to close a gate to the paper's lambda of 1.
_SPARSITY_WEIGHTS = Range(low=0.01, high=1.0, log=True)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The choices that only one method has; the fields of its Selection by name.

    fixed: what the Selection needs beside a knob for that knob to be judged alone.
    """

    selection: ClassVar[type[Selection]] = Dense
    fixed: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        method = self.selection.method
        known = {f.name for f in dataclasses.fields(self.selection)}
        for f in dataclasses.fields(self):
            where = f"space.{method}.{f.name}"
            domain = read_domain(where, getattr(self, f.name), str(f.type))
            object.__setattr__(self, f.name, domain)
            if f.name in known:
                check_each(where, domain, functools.partial(self._probe, f.name))
            else:
                check_from(where, ends(domain), 1)

    def _probe(self, name: str, value: Any) -> FFNSpec:
        # As many experts as any k needs, so that only the knob itself can be at fault.
        n_experts = value**2 if name == "k" and isinstance(value, int) and value > 0 else 256
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
    normalize: Choices = (False,)
    balance_weight: Domain = (0.01,)
    z_weight: Domain = (0.001,)
    entropy_weight: Domain = (0.0,)
    bias_rate: Domain = (0.0,)


@dataclass(frozen=True, kw_only=True)
class HashKnobs(Knobs):
    """Of `Hash`; k is the space's granularity."""

    selection: ClassVar[type[Selection]] = specs.Hash
    balanced: Choices = (True,)


@dataclass(frozen=True, kw_only=True)
class StraightThroughKnobs(Knobs):
    """Of `StraightThrough`.

    expansion: total width / active width at the activity hoped for; of `match: free` alone, as
    the gates decide the activity. A matched design is priced at the activity `cost` expects.
    """

    selection: ClassVar[type[Selection]] = specs.StraightThrough
    expansion: Numbers = (1.0,)
    tau: Domain = (0.5,)
    sparsity_weight: Domain = _SPARSITY_WEIGHTS
    renormalize: Choices = (True,)


@dataclass(frozen=True, kw_only=True)
class ReLURoutingKnobs(Knobs):
    """Of `ReLURouting`; target_activity is 1 / the space's expansion."""

    selection: ClassVar[type[Selection]] = ReLURouting
    l1_start: Domain = (1e-8,)
    l1_factor: Domain = (1.2,)


@dataclass(frozen=True, kw_only=True)
class ProductKeyKnobs(Knobs):
    """Of `ProductKey`. expansion: number of experts / (heads * k), rounded to a square.

    `match: active_flops` derives k and does not ask for it; `match: total_params` derives the
    number of experts and does not ask for expansion.
    """

    selection: ClassVar[type[Selection]] = ProductKey
    heads: Choices = (4, 8)
    k: Choices = (8, 16)
    expansion: Numbers = (8.0, 32.0)
    key_dim: Choices = (64,)
    gate: Choices = ("softmax",)
    query_norm: Choices = ("batch",)
    values: Choices = ("peer",)


KNOBS: dict[str, type[Knobs]] = {
    cls.selection.method: cls
    for cls in (TopKKnobs, HashKnobs, StraightThroughKnobs, ReLURoutingKnobs, ProductKeyKnobs)
}
