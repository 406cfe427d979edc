"""The parameters that a space asks a trial for: what each is, and when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from search_space.domain import Choices, Domain, Match
from search_space.spec import SELECTIONS

if TYPE_CHECKING:
    from search_space.space.data import SearchSpace

_ALL = tuple(SELECTIONS)
_EXPANDED = ("topk", "hash", "avgk", "direct", "relu_routing")
_BLOCKS = ("topk", "hash", "avgk", "straight_through", "relu_routing")
_MATCHES: tuple[Match, ...] = get_args(Match)


@dataclass(frozen=True)
class Condition:
    """On the parameters chosen before: in words, and as a test."""

    words: str
    holds: Callable[[Mapping[str, Any]], bool]


_GATED_OUTPUT = Condition("output_gate true", lambda chosen: bool(chosen["output_gate"]))
_PEER = Condition("values peer", lambda chosen: chosen["product_key.values"] == "peer")
_ACTIVATED = Condition(
    "values peer, or shared_width above 0",
    lambda chosen: chosen["product_key.values"] == "peer" or chosen["shared_width"] > 0,
)
_SEVERAL = Condition("granularity above 1", lambda chosen: chosen["granularity"] > 1)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter.

    name: as trials have it; `method.knob` is a knob of one method.  meaning: in a few words.
    methods: that ask for it.  conditions: by method, what else must hold.  match: the modes
    that ask for it.  shape: whether it can change a design's widths, cost or legality.
    """

    name: str
    meaning: str
    methods: tuple[str, ...] = _ALL
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    match: tuple[Match, ...] = _MATCHES
    shape: bool = False

    def domain(self, space: SearchSpace) -> Domain | Choices:
        """What the space lets it be."""
        if self.name == "method":
            return space.methods
        owner, _, knob = self.name.rpartition(".")
        found: Domain | Choices = getattr(getattr(space, owner) if owner else space, knob)
        return found

    def offered(self, space: SearchSpace) -> bool:
        """Whether any design of the space is asked for it."""
        return space.match in self.match and bool(self._methods(space))

    def asked(self, space: SearchSpace, chosen: Mapping[str, Any]) -> bool:
        """Whether a trial that chose these parameters is asked for it."""
        method = chosen["method"]
        if space.match not in self.match or method not in self.methods:
            return False
        return method not in self.conditions or self.conditions[method].holds(chosen)

    def when(self, space: SearchSpace) -> str:
        """In words, when a trial of the space is asked for it."""
        methods = self._methods(space)
        bound = {m: self.conditions[m].words for m in methods if m in self.conditions}
        if methods == list(space.methods) and len(bound) < len(methods):
            text = "; ".join(["always", *(f"with {m} only if {w}" for m, w in bound.items())])
        else:
            text = ", ".join(f"{m} if {bound[m]}" if m in bound else m for m in methods)
        return text if self.match == _MATCHES else f"{text} (match {' or '.join(self.match)})"

    def _methods(self, space: SearchSpace) -> list[str]:
        return [method for method in space.methods if method in self.methods]


def _knob(name: str, meaning: str, **fields: Any) -> Parameter:
    return Parameter(name=name, meaning=meaning, methods=(name.split(".")[0],), **fields)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name="method", meaning="how a token picks its blocks", shape=True),
    Parameter(name="depth", meaning="sub-layers that share the width", shape=True),
    Parameter(
        name="output_gate",
        meaning="sigmoid gate on each block's output",
        methods=("dense", *_BLOCKS),
        shape=True,
    ),
    Parameter(
        name="shared_width",
        meaning="always-on share of the active width",
        conditions={"dense": _GATED_OUTPUT},
        shape=True,
    ),
    Parameter(name="activation", meaning="of hidden units", conditions={"product_key": _ACTIVATED}),
    Parameter(
        name="gated",
        meaning="act(x G) * (x K) in place of act(x K)",
        conditions={"product_key": _PEER},
        shape=True,
    ),
    Parameter(name="lr_multiplier", meaning="of the FFN's learning rates"),
    Parameter(
        name="granularity",
        meaning="blocks of the active width; k where a method has one",
        methods=("dense", *_BLOCKS),
        conditions={"dense": _GATED_OUTPUT},
        shape=True,
    ),
    Parameter(name="expansion", meaning="total / active width", methods=_EXPANDED, shape=True),
    Parameter(
        name="active_width",
        meaning="units a token uses / reference width",
        methods=tuple(m for m in _ALL if m != "product_key"),
        match=("free",),
        shape=True,
    ),
    _knob("topk.gate", "weights from the router's logits"),
    _knob("topk.normalize", "weights sum to 1", conditions={"topk": _SEVERAL}),
    _knob("topk.balance_weight", "load-balancing loss, alpha"),
    _knob("topk.z_weight", "router z-loss, beta"),
    _knob("topk.entropy_weight", "entropy regulariser, gamma"),
    _knob("topk.bias_rate", "bias balancing, u"),
    _knob("hash.balanced", "tables by token frequency, or random"),
    _knob("hash.seed", "of the tables"),
    _knob("straight_through.tau", "threshold of the gates"),
    _knob("straight_through.sparsity_weight", "sparsity loss, lambda"),
    _knob("straight_through.renormalize", "scale by blocks / open blocks"),
    _knob(
        "straight_through.expansion",
        "total / active width hoped for",
        match=("free",),
        shape=True,
    ),
    _knob("relu_routing.l1_start", "first coefficient of the L1 penalty"),
    _knob("relu_routing.l1_factor", "its step up or down"),
    _knob("product_key.values", "experts with keys, or value rows", shape=True),
    _knob("product_key.heads", "retrievals a token", shape=True),
    _knob("product_key.k", "experts a head", match=("free", "total_params"), shape=True),
    _knob(
        "product_key.expansion",
        "experts / (heads * k), to a square",
        match=("free", "active_flops"),
        shape=True,
    ),
    _knob("product_key.key_dim", "width of a query / d_model", shape=True),
    _knob(
        "product_key.expert_width",
        "hidden units of an expert",
        conditions={"product_key": _PEER},
        shape=True,
    ),
    _knob("product_key.gate", "weights from the scores"),
    _knob("product_key.query_norm", "normalisation of the queries"),
)

# What a walk over shapes leaves at its first choice.
HELD: frozenset[str] = frozenset(p.name for p in PARAMETERS if not p.shape)
