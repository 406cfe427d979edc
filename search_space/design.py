"""`Method`: a way in which a token picks its experts, and the `Design` that it stands in.

One file of `search_space.methods` has one method; docs/extending.md writes one step by step.
`search_space.spec.FFNSpec` is a `Design` that was checked, and has a key; it looks methods up, so
no method may import it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from search_space.checks import flag as _flag
from search_space.checks import one_of as _one_of
from search_space.checks import real as _real
from search_space.checks import whole as _whole
from search_space.domain import Match
from search_space.errors import InputError, SpecError, require
from search_space.parameter import Condition, Knobs
from search_space.prices import Cost
from search_space.routing import Routing

Activation = Literal["gelu", "relu", "silu"]
Gate = Literal["softmax", "sigmoid"]
Placement = Literal["all", "alternate", "middle", "all_but_first"]
Cut = Literal["contiguous", "clustered", "magnitude", "activation"]

# A design's own errors are SpecErrors, which a search steps over.
need = functools.partial(require, error=SpecError)
whole = functools.partial(_whole, error=SpecError)
weight = functools.partial(_real, least=0, error=SpecError)
flag = functools.partial(_flag, error=SpecError)


def one_of(name: str, value: object, literal: Any) -> None:
    """Refuse what is none of a Literal's words."""
    _one_of(name, value, literal.__args__, SpecError)  # as get_args has them, at less cost


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a trial chose, and what holds for all designs of its space.

    params: the parameters by name.
    match: the space's mode.
    multiple: expert widths are multiples of it.
    d_model: width of the model.
    """

    params: Mapping[str, Any]
    match: Match
    multiple: int
    d_model: int

    def __getitem__(self, name: str) -> Any:
        if name not in self.params:
            raise InputError(
                f"the selection method {self.params.get('method')!r} plans with {name!r}, which "
                "it has not asked for: add it to its `asks`"
            )
        return self.params[name]


class Shape(NamedTuple):
    """The experts of one sub-layer; `active` hidden units of them are selected."""

    n_experts: int
    expert_width: int
    active: int
    selection: Method


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A design up to its width.

    build: from a whole number, 1 or more, to the experts; their size grows with it.
    expansion: total / active width.
    n: given when nothing is left to fit.
    """

    build: Callable[[int], Shape]
    expansion: float = 1.0
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way in which a token picks its experts; an object of it is the selection of one design.

    A subclass is a frozen dataclass. Its fields are the selection's, and beside them it says:

    method: its name.
    layer: where its layer is, `module:Class`, in a module of its own.
    asks: the parameters that a trial is asked for, in order.
    knobs: the dataclass of its own keys in a space; None when it has none.
    when: what must hold beside for a parameter of every method, by its name.
    needs_vocabulary: whether its layer is built with the vocabulary's size, too.
    order: its place among the methods of this project, which proposals follow from: never changed.
    whole_experts: whether experts are read as wholes, whose outputs a gate can weigh.
    cuttable: whether its experts can be slices of a pretrained FFN, with no keys or rows beside.
    """

    method: ClassVar[str]
    layer: ClassVar[str]
    asks: ClassVar[tuple[str, ...]]
    knobs: ClassVar[type[Knobs] | None] = None
    when: ClassVar[Mapping[str, Condition]] = {}
    needs_vocabulary: ClassVar[bool] = False
    order: ClassVar[int] = 1_000
    whole_experts: ClassVar[bool] = True
    cuttable: ClassVar[bool] = False

    @classmethod
    def plan(cls, chosen: Chosen) -> Plan:
        """From what a trial chose to a design of any width; SpecError where none is legal."""
        raise NotImplementedError

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """What one sub-layer's selection and experts cost, made of `prices` and `experts`.

        activity: the measured share of active experts; None where none was measured.
        """
        raise NotImplementedError

    def validate(self, spec: Design) -> None:
        """Raise SpecError unless this selection is legal in `spec`."""

    def canonical(self, spec: Design) -> Mapping[str, Any]:
        """Fields of `spec` that change nothing, with the values they are written with."""
        return {}

    def reads(self, spec: Design) -> float:
        """Experts a token: k where there is one, else all; expected, where the token decides."""
        return float(getattr(self, "k", spec.n_experts))

    def resized(self, spec: Design, match: Match, n: int) -> Mapping[str, Any]:
        """Fields that make `spec` larger or smaller and leave what it is: experts n units wide.

        match: the cost that it is resized for.
        n: 1 or more; the design grows with it.
        """
        n_shared = spec.shared_width / spec.depth / spec.expert_width
        return {
            "d_ff": spec.depth * spec.n_experts * n,
            "expert_width": n,
            "shared_width": spec.depth * round(n_shared * n),
        }

    def scaled(self, spec: Design, growth: float, n: int) -> Mapping[str, Any]:
        """Fields of the same design in a model `growth` times as wide: experts n units wide.

        n: 1 or more; the design's active FLOPs grow with it.
        """
        return self.resized(spec, "active_flops", n)

    def native(self, spec: Design) -> Routing | None:
        """What this selection is in the words of transformers' own classes; None where it is not
        exactly that. Its layer then has a `linear_router`."""
        return None

    def nearest_native(self, spec: Design) -> Mapping[str, Any]:
        """Fields of `spec` with which a class has the selection, where `native` is not enough."""
        return {}

    @classmethod
    def learned(cls, k: int) -> Method | None:
        """A learned router of this method that keeps k experts, as the classes have it; None where
        the method has none."""
        return None

    def pins(self, spec: Design) -> dict[str, Any]:
        """The parameters that a design spells out; a search for its others tries every choice."""
        return {f"{self.method}.{name}": getattr(self, name) for name in self.fields()}

    @property
    def rate_factor(self) -> float:
        """The best learning rates of its designs over those of the rule in `search_space.rates`,
        which is the dense design's; docs/recipe.md has the measurement."""
        return 1.0

    @property
    def title(self) -> str:
        """The method's name in a label."""
        return self.method

    @property
    def notes(self) -> list[str]:
        """What else a label says."""
        return []

    @property
    def value_rows(self) -> bool:
        """Whether an expert is one bare value row, with no hidden unit."""
        return False

    @classmethod
    def fields(cls) -> dict[str, str]:
        """The selection's fields: their types by name."""
        return {f.name: str(getattr(f.type, "__name__", f.type)) for f in dataclasses.fields(cls)}

    @classmethod
    def own(cls, chosen: Chosen) -> dict[str, Any]:
        """The fields of the selection that were chosen under their own names."""
        names = {f"{cls.method}.{name}": name for name in cls.fields()}
        return {names[name]: value for name, value in chosen.params.items() if name in names}

    def to_dict(self) -> dict[str, Any]:
        """Plain data; whole-valued weights are floats, so that 1 and 1.0 have one key."""
        values = ((name, getattr(self, name), kind) for name, kind in self.fields().items())
        plain = {name: float(value) if kind == "float" else value for name, value, kind in values}
        return {"method": self.method} | plain


@dataclass(frozen=True, kw_only=True)
class Design:
    """One feed-forward design.

    d_ff: hidden units of the selectable part, over all experts and sub-layers.
    expert_width: hidden units of one expert (g); 0 means one expert a sub-layer.
    depth: sequential sub-layers (M) that share d_ff and shared_width evenly, each with
        its own RMSNorm, residual, selection and experts.
    activation: of the hidden units.
    gated: act(x G^T) * (x K^T) in place of act(x K^T).
    selection: how a token picks its experts.
    shared_width: hidden units of an always-on FFN beside the selected experts, over all sub-layers.
    output_gate: Finedeep's sigmoid(o_i . R_i) on each expert's output (2502.12928).
    lr_multiplier: of the recipe's learning rates, for this FFN's parameters alone.
    placement: which layers of the model have it (`search_space.placement`); the others keep the
        reference FFN.
    cut: of a pretrained FFN, in which order its units fill the experts, and which stay out where
        the design has fewer (`workers.pretrained.cutting`).
    """

    d_ff: int
    expert_width: int = 0
    depth: int = 1
    activation: Activation = "gelu"
    gated: bool = False
    selection: Method
    shared_width: int = 0
    output_gate: bool = False
    lr_multiplier: float = 1.0
    placement: Placement = "all"
    cut: Cut = "contiguous"

    @property
    def method(self) -> str:
        """The selection method's name."""
        return self.selection.method

    @property
    def n_experts(self) -> int:
        """Experts of one sub-layer (B)."""
        return self.d_ff // (self.depth * self.expert_width)

    @property
    def granularity(self) -> float:
        """Active width / expert width of a sub-layer (G of Krajewski et al. 2024): experts a token.

        A shared FFN is not counted.
        """
        return float(self.selection.reads(self))


def check_k(k: object, spec: Design) -> None:
    """Refuse a number of experts a token that is not in [1, n_experts]."""
    whole("k", k)
    need(
        k <= spec.n_experts,  # type: ignore[operator]
        f"k must be at most the number of experts, {spec.n_experts} "
        f"(d_ff {spec.d_ff} / depth {spec.depth} / expert_width {spec.expert_width}): got {k}",
    )
