"""`FFNSpec`: one feed-forward design, with no weights.

Every design is one view of a key-value memory read in blocks (Liu et al. 2023,
arXiv 2305.13999), which are called experts here: pick experts S(x), weigh them by w(x), sum
their outputs,

    y = sum over b in S(x) of w_b(x) * FFN_b(x).

A spec says how wide an expert is (`expert_width`), how many there are (`n_experts`),
over how many sequential sub-layers the width is spread (`depth`), and how a token
picks its experts (`selection`). A spec is frozen; a change is `dataclasses.replace`,
so validation always runs again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search_space.checks import DIM, UNITS
from search_space.design import (
    Activation,
    Cut,
    Design,
    Method,
    Placement,
    flag,
    need,
    one_of,
    weight,
    whole,
)
from search_space.errors import SpecError, check_keys, shown
from search_space.methods import find, has, names


def _default() -> Method:
    """The standard FFN's: the first method."""
    return find(names()[0])()


@dataclass(frozen=True, kw_only=True)
class FFNSpec(Design):
    """A `Design` that is legal; SpecError where it is not. Left out, `selection` is dense."""

    selection: Method = field(default_factory=_default)

    def __post_init__(self) -> None:
        whole("d_ff", self.d_ff, most=UNITS)
        whole("depth", self.depth, most=DIM)
        if self.d_ff % self.depth:
            raise SpecError(
                f"depth must divide d_ff: {self.depth} does not divide {self.d_ff}; "
                f"nearest: {_nearest_divisors(self.d_ff, self.depth)}"
            )
        whole("expert_width", self.expert_width, least=0, most=UNITS)
        width = self.d_ff // self.depth
        if self.expert_width == 0:
            object.__setattr__(self, "expert_width", width)
        if width % self.expert_width:
            raise SpecError(
                f"expert_width must divide d_ff/depth: {self.expert_width} does not divide "
                f"{width}; nearest: {_nearest_divisors(width, self.expert_width)}"
            )
        one_of("activation", self.activation, Activation)
        flag("gated", self.gated)
        flag("output_gate", self.output_gate)
        whole("shared_width", self.shared_width, least=0, most=UNITS)
        need(
            self.shared_width % self.depth == 0,
            f"depth must divide shared_width: {self.depth} does not divide {self.shared_width}",
        )
        weight("lr_multiplier", self.lr_multiplier)
        need(self.lr_multiplier > 0, "lr_multiplier must be above 0: got 0")
        one_of("placement", self.placement, Placement)
        one_of("cut", self.cut, Cut)
        self._check_selection()

    def _check_selection(self) -> None:
        if not has(self.selection):
            raise SpecError(f"selection must be a method's object: got {shown(self.selection)}")
        self.selection.validate(self)
        weighable = self.expert_width > 1 and self.selection.whole_experts
        need(
            weighable or not self.output_gate,
            f"an output gate needs whole experts: selection {self.method} with expert_width "
            f"{self.expert_width} has none; set output_gate: false or widen the experts",
        )

    def canonical(self) -> FFNSpec:
        """The same function written one way: knobs that change nothing take their default."""
        changes = self.selection.canonical(self)
        return dataclasses.replace(self, **changes) if changes else self

    @property
    def key(self) -> str:
        """A stable name of this design: equal for equal designs, in every process and version."""
        text = json.dumps(self.canonical().to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short name for people, such as `topk 8/64x64 gelu`."""
        sel = self.selection
        experts = f"{self.n_experts}x{self.expert_width}"
        k = getattr(sel, "k", None)
        heads = getattr(sel, "heads", None)
        if k is not None:
            experts = f"{k}/{experts}" if heads is None else f"{heads}h{k}/{experts}"
        act = {"gelu": "geglu", "silu": "swiglu", "relu": "reglu"}[self.activation]
        parts = [sel.title, experts, act if self.gated else self.activation, *sel.notes]
        if self.depth > 1:
            parts.append(f"depth={self.depth}")
        if self.output_gate:
            parts.append("out-gate")
        if self.shared_width:
            parts.append(f"shared={self.shared_width}")
        if self.placement != "all":
            parts.append(self.placement)
        if self.cut != "contiguous":
            parts.append(self.cut)
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `from_dict` reads it back.

        A placement in all layers and a contiguous cut are left out: keys are made of this, and
        designs had none before.
        """
        out: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "selection"
        }
        out["lr_multiplier"] = float(self.lr_multiplier)
        out["selection"] = self.selection.to_dict()
        if self.placement == "all":
            del out["placement"]
        if self.cut == "contiguous":
            del out["cut"]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FFNSpec:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        if not isinstance(data, Mapping):
            raise SpecError(f"a spec is a mapping of its fields: got {shown(data)}")
        check_keys("spec", data, [f.name for f in dataclasses.fields(cls)])
        need("d_ff" in data, "a spec needs d_ff, its hidden width: none given")
        fields = dict(data)
        if "selection" in fields:
            fields["selection"] = selection_from_dict(fields["selection"])
        return cls(**fields)


def selection_from_dict(data: Mapping[str, Any] | str) -> Method:
    """`{"method": "topk", "k": 2}` or just `"topk"` -> the selection."""
    if isinstance(data, str):
        data = {"method": data}
    if not isinstance(data, Mapping):
        raise SpecError(f"selection is a name or a mapping: got {shown(data)}")
    cls = find(data.get("method"))
    knobs = {k: v for k, v in data.items() if k != "method"}
    check_keys(f"selection {cls.method}", knobs, cls.fields())
    return cls(**knobs)


def label_of(data: Mapping[str, Any]) -> str:
    """The label of a design in `to_dict`'s form that was checked when it was stored.

    Nothing is checked again, so that ten thousand take a tenth of a second. For nonsense it raises
    what that comes to: ValueError, TypeError, KeyError, AttributeError or ZeroDivisionError.
    """
    own = dict(data)
    given = own.pop("selection") if "selection" in own else names()[0]
    knobs = {"method": given} if isinstance(given, str) else dict(given)
    selection = object.__new__(find(knobs.pop("method", None)))
    selection.__dict__.update(knobs)  # what is missing is the class's default
    spec = object.__new__(FFNSpec)
    spec.__dict__.update(own, selection=selection)
    if not spec.expert_width:
        spec.__dict__["expert_width"] = spec.d_ff // spec.depth
    return spec.label


def _nearest_divisors(n: int, wanted: int) -> str:
    """The largest divisor of n up to `wanted` and the smallest above it."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    divisors = [*small, *(n // d for d in small)]
    below = max(d for d in divisors if d <= wanted)
    above = min((d for d in divisors if d > wanted), default=n)
    return f"{below}, {above}" if below != above else str(below)
