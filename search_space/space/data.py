"""`SearchSpace`: which FFN designs a study may try, and the way from a trial to a spec and back.

Sizes are ratios of the reference dense FFN, `backbone.reference_d_ff` hidden units wide, so one
space serves every backbone. For one sub-layer of a routed design

    active width = granularity * expert_width        (k = granularity experts a token)
    total width  = expansion * active width          (n_experts = granularity * expansion)

after Krajewski et al. 2024, where granularity G cuts an expert into G and routes to G times as
many. A space asks a trial for ratios and derives widths from them, so what it yields is legal by
construction; the few combinations that are not raise SpecError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from search_space.backbone import Backbone
from search_space.checks import known_word, one_of
from search_space.cost import ffn_cost
from search_space.domain import (
    Choices,
    Domain,
    Match,
    Numbers,
    Range,
    Trial,
    ask,
    check_each,
    check_from,
    read_domain,
)
from search_space.errors import InputError, SpecError, check_keys, require
from search_space.knobs import (
    KNOBS,
    HashKnobs,
    Knobs,
    ProductKeyKnobs,
    ReLURoutingKnobs,
    StraightThroughKnobs,
    TopKKnobs,
)
from search_space.parameter import HELD
from search_space.shown import shown
from search_space.space.sizing import PLANS
from search_space.space.walk import Draw, OutsideSpace, Walk
from search_space.spec import SELECTIONS, FFNSpec

# Of `match: free`; a matched design has the width that its cost leaves it.
_ACTIVE_WIDTHS = (0.5, 1.0, 2.0)
_LR_MULTIPLIERS = Range(low=0.5, high=2.0, log=True)

LOOKS = 2_000  # paths that a question about a whole space may try

# Methods that read k of n experts: reading all of them would be the dense FFN again.
_ROUTED = ("topk", "hash", "avgk", "direct", "relu_routing")


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The designs of a study: each field is a list of choices, or {low, high, log} for weights.

    The defaults are the whole space, with every published design at d_model 128 in it but
    DeepSeekMoE, whose 6 of 64 experts need their own expansion.

    methods: selection methods (`search_space.spec.SELECTIONS`).
    match: `free` sizes designs by active_width; `active_flops` and `total_params` choose each
        design's width so that its FFN's figure equals the reference dense FFN's.
    active_width: hidden units a token uses, shared ones included, as ratios of the reference
        width; of `match: free` alone. Product keys have heads * k * expert_width units instead.
    expansion: total width / active width of topk, hash, avgk, direct and relu_routing; above 1.
    granularity: active width of a sub-layer / expert width; it is k where a method has one.
    depth: sequential sub-layers that share the width.
    activation, gated, output_gate, lr_multiplier: as in `FFNSpec`.
    shared_width: share of the active width, in [0, 1), that is an always-on FFN. The dense method
        has one beside gated outputs only.
    width_multiple: expert widths are multiples of it (4 float32 are the 16 bytes that grouped
        matrix products are aligned to).
    topk, hash, straight_through, relu_routing, product_key: knobs of one method.
    """

    methods: Choices = tuple(SELECTIONS)
    match: Match = "free"
    active_width: Numbers = _ACTIVE_WIDTHS
    expansion: Numbers = (2.0, 4.0, 8.0)
    granularity: Choices = (1, 2, 4, 8)
    depth: Choices = (1, 2)
    activation: Choices = ("gelu", "relu", "silu")
    gated: Choices = (False, True)
    shared_width: Numbers = (0.0, 0.25)
    output_gate: Choices = (False, True)
    lr_multiplier: Domain = _LR_MULTIPLIERS
    width_multiple: int = 4
    topk: TopKKnobs = field(default_factory=TopKKnobs)
    hash: HashKnobs = field(default_factory=HashKnobs)
    straight_through: StraightThroughKnobs = field(default_factory=StraightThroughKnobs)
    relu_routing: ReLURoutingKnobs = field(default_factory=ReLURoutingKnobs)
    product_key: ProductKeyKnobs = field(default_factory=ProductKeyKnobs)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.type in ("Choices", "Numbers", "Domain"):
                domain = read_domain(f"space.{f.name}", getattr(self, f.name), str(f.type))
                object.__setattr__(self, f.name, domain)
        if self.match != "free" and self.active_width == _ACTIVE_WIDTHS:
            object.__setattr__(self, "active_width", (1.0,))
        self._check_methods()
        self._check_sizes()
        for name in ("activation", "gated", "output_gate", "lr_multiplier"):
            probe = functools.partial(_probe, name)
            check_each(f"space.{name}", getattr(self, name), probe)

    def _check_methods(self) -> None:
        for method in self.methods:
            known_word("space.methods", method, SELECTIONS, "method")
        routed = [method for method in self.methods if method in _ROUTED]
        require(
            not routed or min(self.expansion) > 1,
            f"space.expansion must be above 1, or {', '.join(routed)} would read every expert: "
            f"got {min(self.expansion):g}; the dense method is that design",
        )

    def _check_sizes(self) -> None:
        one_of("space.match", self.match, get_args(Match))
        for width in self.active_width:
            require(width > 0, f"space.active_width must be above 0: got {width:g}")
        require(
            self.match == "free" or self.active_width == (1.0,),
            f"space.active_width is derived under match: {self.match}; leave it out or set "
            "match: free",
        )
        check_from("space.expansion", self.expansion, 1)
        check_from("space.granularity", self.granularity, 1, whole=True)
        check_from("space.depth", self.depth, 1, whole=True)
        check_from("space.width_multiple", [self.width_multiple], 1, whole=True)
        for share in self.shared_width:
            require(
                0 <= share < 1,
                f"space.shared_width is a share of the active width in [0, 1): got {share:g}",
            )

    def suggest(self, trial: Trial, backbone: Backbone) -> FFNSpec:
        """The design that `trial` chooses.

        Raises SpecError when no legal width comes within TOLERANCE of the target.
        """
        method = str(ask(trial, "method", self.methods))
        plan = PLANS[method](self, trial, backbone, method)
        if plan.n is not None:
            return plan.build(plan.n)
        if self.match == "free":
            ratio = ask(trial, "active_width", self.active_width)
            return plan.fit(plan.active_width, ratio * backbone.reference_d_ff, "active_width")

        def priced(spec: FFNSpec) -> float:
            return float(getattr(ffn_cost(spec, backbone.d_model), self.match))

        return plan.fit(priced, priced(FFNSpec(d_ff=backbone.reference_d_ff)), self.match)

    def designs(self, backbone: Backbone) -> Iterator[tuple[dict[str, Any], FFNSpec]]:
        """Every legal combination of the choices with its parameters; ranges stand at `low`."""
        return ((dict(walk.params), spec) for walk, spec in self._walk(backbone, Walk({})))

    def shapes(self, backbone: Backbone) -> Iterator[tuple[FFNSpec, int]]:
        """One legal design of every shape, with the number of combinations that have it.

        Knobs that change neither widths nor cost (`Parameter.shape`) stand at their first choice,
        so this visits few designs of a large space, and one of every cost that it offers.
        """
        walks = self._walk(backbone, Walk({}, held=HELD))
        return ((spec, walk.multiplicity) for walk, spec in walks)

    def look(self, backbone: Backbone) -> Iterator[FFNSpec]:
        """Legal designs among LOOKS paths in order and as many drawn ones: a bounded time.

        Shows one of every shape while the space has no more paths than that.
        """
        walk = Walk({}, held=HELD)
        yield from (spec for _, spec in self._walk(backbone, walk, most=LOOKS))
        if walk.ended:
            return
        draw = Draw(seed=0)
        for _ in range(LOOKS):
            with contextlib.suppress(SpecError):
                yield self.suggest(draw, backbone)

    def _walk(
        self, backbone: Backbone, walk: Walk, most: float = math.inf
    ) -> Iterator[tuple[Walk, FFNSpec]]:
        for looked in itertools.count():
            if looked >= most or not walk.next_path():
                return
            try:
                spec = self.suggest(walk, backbone)
            except SpecError:
                continue
            yield walk, spec

    def combinations(self, backbone: Backbone) -> int:
        """Number of different legal designs, each range counted as one value.

        Combinations that spell the same function (`FFNSpec.canonical`) count once.
        """
        return sum({spec.canonical(): n for spec, n in self.shapes(backbone)}.values())

    def params(self, spec: FFNSpec, backbone: Backbone) -> dict[str, Any]:
        """Parameters that make `suggest` yield a design with the key of `spec`.

        Raises InputError when the spec lies outside the space, or is not among the first LOOKS
        paths to designs that are alike.
        """
        try:
            walks = self._walk(backbone, Walk(_pins(spec.canonical())), most=LOOKS)
            for walk, candidate in walks:
                if candidate.key == spec.key:
                    return dict(walk.params)
        except OutsideSpace as error:
            raise InputError(f"{spec.label} lies outside the space: {error}") from None
        raise InputError(
            f"{spec.label} lies outside the space: no legal choice gives d_ff {spec.d_ff}, "
            f"expert_width {spec.expert_width}, shared_width {spec.shared_width}; widen "
            "active_width, expansion, granularity, shared_width or product_key.key_dim"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `from_dict` reads it back."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        if not isinstance(data, Mapping):
            raise InputError(f"space is a mapping of its fields: got {shown(data)}")
        check_keys("space", data, [f.name for f in dataclasses.fields(cls)])
        fields: dict[str, Any] = dict(data)
        for method, knobs in KNOBS.items():
            if method in fields:
                given = fields[method]
                where = f"space.{method}"
                if not isinstance(given, Mapping):
                    raise InputError(f"{where} is a mapping: got {shown(given)}")
                check_keys(where, given, [f.name for f in dataclasses.fields(knobs)])
                fields[method] = knobs(**given)
        return cls(**fields)


def _probe(name: str, value: Any) -> FFNSpec:
    return FFNSpec(**{"d_ff": 2, "expert_width": 2, name: value})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Range):
        return dataclasses.asdict(value)
    if isinstance(value, Knobs):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def _pins(spec: FFNSpec) -> dict[str, Any]:
    """The parameters that a spec spells out; the walk tries the ratios that it does not."""
    pinned: dict[str, Any] = {"method": spec.method}
    for name in ("depth", "activation", "gated", "output_gate", "lr_multiplier"):
        pinned[name] = getattr(spec, name)
    for f in dataclasses.fields(spec.selection):
        pinned[f"{spec.method}.{f.name}"] = getattr(spec.selection, f.name)
    if spec.shared_width == 0:
        pinned["shared_width"] = 0.0
    if spec.method in ("topk", "hash", "avgk"):
        pinned["granularity"] = pinned[f"{spec.method}.k"]
    if spec.method == "product_key":
        del pinned["product_key.key_dim"]  # the space has it as a ratio
        pinned["product_key.expert_width"] = spec.expert_width
    return pinned
