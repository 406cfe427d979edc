"""From chosen ratios to legal widths: what each selection method asks for and how it is sized."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_space import spec as specs
from search_space.backbone import Backbone
from search_space.domain import Trial, ask
from search_space.errors import SpecError
from search_space.spec import Dense, FFNSpec, ProductKey, ReLURouting, Selection

if TYPE_CHECKING:
    from search_space.space.data import SearchSpace

# A design whose width misses its target by more than this share is refused.
TOLERANCE = 0.05
_GROWTH = 8  # of the widths tried, until one is too wide


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What designs of every method have: all of a spec but its blocks and selection."""

    depth: int
    shared: float
    multiple: int
    fields: dict[str, Any]

    def spec(self, n_experts: int, expert_width: int, active: int, selection: Selection) -> FFNSpec:
        """`active`: selected hidden units of one sub-layer, which the shared share adds to."""
        shared = 0
        if self.shared:
            ideal = active * self.shared / (1 - self.shared)
            shared = self.multiple * max(1, round(ideal / self.multiple))
        return FFNSpec(
            d_ff=self.depth * n_experts * expert_width,
            expert_width=expert_width,
            depth=self.depth,
            selection=selection,
            shared_width=self.depth * shared,
            **self.fields,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A design up to its width: `build(n)` grows with n.

    expansion: total / active width.  n: given when nothing is left to fit.
    """

    build: Callable[[int], FFNSpec]
    expansion: float = 1.0
    n: int | None = None

    def active_width(self, spec: FFNSpec) -> float:
        """Hidden units a token uses, over all sub-layers."""
        return spec.d_ff / self.expansion + spec.shared_width

    def fit(self, measure: Callable[[FFNSpec], float], target: float, name: str) -> FFNSpec:
        """The design whose measure is nearest to `target`; SpecError beyond TOLERANCE."""

        @functools.cache
        def size(n: int) -> float:
            try:
                return measure(self.build(n))
            except SpecError:  # a k that has outgrown its experts, a gated block of one unit
                return math.inf

        n = min(_bracket(size, target), key=lambda n: abs(size(n) - target))
        spec, off = self.build(n), size(n) / target - 1
        if abs(off) > TOLERANCE:
            raise SpecError(
                f"{name} {target:g} cannot be met: the nearest legal design, {spec.label}, is "
                f"{off:+.0%} off, more than {TOLERANCE:.0%}; lower width_multiple, granularity, "
                "depth, expansion or heads"
            )
        return spec


def _bracket(size: Callable[[int], float], target: float) -> tuple[int, int]:
    """The neighbours n, n + 1 between which a growing size passes the target; (1, 2) at least."""
    low, high = 1, 2
    while size(high) < target:
        low, high = high, _GROWTH * high
    straight = True
    while high - low > 1:
        middle = (low + high) // 2
        # Sizes are straight lines in n but for rounding; halving guards against the others.
        if straight and size(low) < size(high) < math.inf:
            share = (target - size(low)) / (size(high) - size(low))
            middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        straight = not straight
        low, high = (middle, high) if size(middle) < target else (low, middle)
    return low, high


def _frame(
    space: SearchSpace, trial: Trial, *, blocks: bool, plain: bool = False, rows: bool = False
) -> Frame:
    """Ask for what the method has.

    blocks: whole ones, which an output gate can weigh.  plain: no selection, so that a shared FFN
    is told apart only beside gated outputs.  rows: bare value rows, with no activation.
    """
    fields: dict[str, Any] = {}
    depth = ask(trial, "depth", space.depth)
    if blocks:
        fields["output_gate"] = ask(trial, "output_gate", space.output_gate)
    share = 0.0
    if not plain or fields["output_gate"]:
        share = ask(trial, "shared_width", space.shared_width)
    if not rows or share:
        fields["activation"] = ask(trial, "activation", space.activation)
    if not rows:
        fields["gated"] = ask(trial, "gated", space.gated)
    fields["lr_multiplier"] = ask(trial, "lr_multiplier", space.lr_multiplier)
    return Frame(depth=depth, shared=share, multiple=space.width_multiple, fields=fields)


def _plan_dense(space: SearchSpace, trial: Trial, backbone: Backbone, method: str) -> Plan:
    frame = _frame(space, trial, blocks=True, plain=True)
    # Blocks of weight 1 sum to one FFN: only an output gate tells them apart.
    blocks = ask(trial, "granularity", space.granularity) if frame.fields["output_gate"] else 1

    def build(n: int) -> FFNSpec:
        width = n * space.width_multiple
        return frame.spec(blocks, width, blocks * width, Dense())

    return Plan(build=build)


def _plan_blocks(space: SearchSpace, trial: Trial, backbone: Backbone, method: str) -> Plan:
    """topk, hash, avgk, straight_through and relu_routing: the expert width is fitted."""
    frame = _frame(space, trial, blocks=True)
    granularity = ask(trial, "granularity", space.granularity)
    expansion = _ask_expansion(space, trial, method)
    selection = _BLOCK_SELECTIONS[method](space, trial, granularity, expansion)
    n_experts = _count_experts(granularity, expansion, method)

    def build(n: int) -> FFNSpec:
        width = n * space.width_multiple
        return frame.spec(n_experts, width, granularity * width, selection)

    return Plan(build=build, expansion=expansion)


def _count_experts(granularity: int, expansion: float, method: str) -> int:
    n_experts = round(granularity * expansion)
    if not math.isclose(n_experts, granularity * expansion):
        raise SpecError(
            "granularity * expansion is the number of experts, a whole number: "
            f"got {granularity} * {expansion:g}"
        )
    if n_experts == 1:
        raise SpecError(
            f"{method} over one expert selects nothing: granularity {granularity} * expansion "
            f"{expansion:g} is 1; raise one of them, or use the dense method"
        )
    return n_experts


def _ask_expansion(space: SearchSpace, trial: Trial, method: str) -> float:
    if method != "straight_through":
        return float(ask(trial, "expansion", space.expansion))
    if space.match != "free":
        return 1.0
    return float(space.straight_through.ask(trial, "expansion")["expansion"])


def _select_topk(space: SearchSpace, trial: Trial, k: int, expansion: float) -> Selection:
    names = ["gate", "balance_weight", "z_weight", "entropy_weight", "bias_rate"]
    if k > 1:  # one weight divided by itself would starve the router of gradient
        names.append("normalize")
    return specs.TopK(k=k, **space.topk.ask(trial, *names))


def _select_hash(space: SearchSpace, trial: Trial, k: int, expansion: float) -> Selection:
    return specs.Hash(k=k, **space.hash.ask(trial, "balanced", "seed"))


def _select_avgk(space: SearchSpace, trial: Trial, k: int, expansion: float) -> Selection:
    return specs.AvgK(k=k)


def _select_st(space: SearchSpace, trial: Trial, k: int, expansion: float) -> Selection:
    knobs = space.straight_through.ask(trial, "tau", "sparsity_weight", "renormalize")
    return specs.StraightThrough(**knobs)


def _select_relu(space: SearchSpace, trial: Trial, k: int, expansion: float) -> Selection:
    knobs = space.relu_routing.ask(trial, "l1_start", "l1_factor")
    return ReLURouting(target_activity=1 / expansion, **knobs)


def _plan_direct(space: SearchSpace, trial: Trial, backbone: Backbone, method: str) -> Plan:
    frame = _frame(space, trial, blocks=False)
    expansion = ask(trial, "expansion", space.expansion)

    def build(n: int) -> FFNSpec:
        # Rounding a small expansion must not read every unit: that is the dense FFN.
        n_units = max(n + 1, round(n * expansion))
        return frame.spec(n_units, 1, n, specs.Direct(k=n))

    return Plan(build=build, expansion=expansion)


def _plan_product_key(space: SearchSpace, trial: Trial, backbone: Backbone, method: str) -> Plan:
    knobs = space.product_key
    asked = knobs.ask(trial, "values", "heads", "key_dim", "gate", "query_norm")
    heads, rows = asked["heads"], asked["values"] == "pkm"
    asked["key_dim"] = max(2, 2 * int(asked["key_dim"] * backbone.d_model / 2))
    width = 1 if rows else knobs.ask(trial, "expert_width")["expert_width"]
    frame = _frame(space, trial, blocks=False, rows=rows)

    def spec(root: int, k: int) -> FFNSpec:
        root = max(root, math.isqrt(k) + 1)  # more experts than one head reads
        return frame.spec(root * root, width, heads * k * width, ProductKey(k=k, **asked))

    if space.match == "total_params":
        k = knobs.ask(trial, "k")["k"]
        least = math.isqrt(k)
        return Plan(build=lambda n: spec(least + n, k))
    expansion = knobs.ask(trial, "expansion")["expansion"]

    def build(n: int) -> FFNSpec:
        return spec(round(math.sqrt(heads * n * expansion)), n)

    n = knobs.ask(trial, "k")["k"] if space.match == "free" else None
    return Plan(build=build, expansion=expansion, n=n)


_BLOCK_SELECTIONS: dict[str, Callable[[SearchSpace, Trial, int, float], Selection]] = {
    "topk": _select_topk,
    "hash": _select_hash,
    "avgk": _select_avgk,
    "straight_through": _select_st,
    "relu_routing": _select_relu,
}

PLANS: dict[str, Callable[[SearchSpace, Trial, Backbone, str], Plan]] = {
    "dense": _plan_dense,
    "direct": _plan_direct,
    "product_key": _plan_product_key,
    **dict.fromkeys(_BLOCK_SELECTIONS, _plan_blocks),
}
