"""From a method's plan to a design of a legal width."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search_space.backbone import Backbone
from search_space.cost import ffn_cost
from search_space.design import Chosen, Shape
from search_space.domain import Match
from search_space.errors import SpecError
from search_space.placement import reference
from search_space.spec import FFNSpec

# A design whose width misses its target by more than this share is refused.
TOLERANCE = 0.05
NARROWER = "lower width_multiple, granularity, depth, expansion or heads"
_GROWTH = 8  # of the widths tried, until one is too wide
# The fields of a spec that are as they were chosen; widths follow from depth and shared_width.
_CHOSEN = {f.name for f in dataclasses.fields(FFNSpec)} - {"depth", "shared_width"}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What designs of every method have: all of a spec but its experts and selection.

    depth: sub-layers.
    shared: the always-on share of the active width.
    multiple: shared widths are multiples of it.
    fields: of the spec, as they were chosen.
    """

    depth: int
    shared: float
    multiple: int
    fields: dict[str, Any]

    @classmethod
    def of(cls, chosen: Chosen) -> Frame:
        """What was chosen; a field that was not asked for keeps its default."""
        return cls(
            depth=chosen["depth"],
            shared=chosen.params.get("shared_width", 0.0),
            multiple=chosen.multiple,
            fields={name: value for name, value in chosen.params.items() if name in _CHOSEN},
        )

    def spec(self, shape: Shape) -> FFNSpec:
        """The design; the shared share adds to the active units of each sub-layer."""
        shared = 0
        if self.shared:
            ideal = shape.active * self.shared / (1 - self.shared)
            shared = self.multiple * max(1, round(ideal / self.multiple))
        return FFNSpec(
            d_ff=self.depth * shape.n_experts * shape.expert_width,
            expert_width=shape.expert_width,
            depth=self.depth,
            selection=shape.selection,
            shared_width=self.depth * shared,
            **self.fields,
        )


def fit(
    build: Callable[[int], FFNSpec],
    measure: Callable[[FFNSpec], float],
    target: float,
    name: str,
    way_out: str = NARROWER,
) -> FFNSpec:
    """The design whose measure is nearest to `target`; SpecError beyond TOLERANCE.

    build: from a whole number, 1 or more, to a design; its measure grows with it.
    name: of the measure, in an error.
    way_out: what to do about an error.
    """

    @functools.cache
    def size(n: int) -> float:
        try:
            return measure(build(n))
        except SpecError:  # a k that has outgrown its experts, a gated expert of one unit
            return math.inf

    n = min(_bracket(size, target), key=lambda n: abs(size(n) - target))
    if math.isinf(size(n)):
        raise SpecError(f"{name} {target:g} cannot be met: no width is legal; {way_out}")
    spec, off = build(n), size(n) / target - 1
    if abs(off) > TOLERANCE:
        raise SpecError(
            f"{name} {target:g} cannot be met: the nearest legal design, {spec.label}, is "
            f"{off:+.0%} off, more than {TOLERANCE:.0%}; {way_out}"
        )
    return spec


def fit_cost(
    build: Callable[[int], FFNSpec], match: Match, backbone: Backbone, way_out: str = NARROWER
) -> FFNSpec:
    """The design whose FFN costs what the reference one does, in the figure that `match` names."""

    def priced(spec: FFNSpec) -> float:
        return float(getattr(ffn_cost(spec, backbone.d_model), match))

    return fit(build, priced, priced(reference(backbone)), match, way_out)


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
