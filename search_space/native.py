"""Which of transformers' own classes computes exactly what a design does, if any.

The classes' attention is the proxy's: RMS-normed queries and keys a head, then rotary positions.
That leaves Qwen3 (one SwiGLU FFN), Qwen3-MoE (top-k by softmax) and dots.llm1 (top-k by sigmoid,
with a bias of the choice and a shared expert). OLMoE norms queries and keys over all heads at once,
HunYuan after the positions, Qwen2-MoE and DeepSeek not at all: they compute something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from search_space.backbone import Backbone
from search_space.base import Base, Family
from search_space.cuts import pruned
from search_space.experts import MATRIX_ROWS
from search_space.methods import find, names
from search_space.routing import EVERY_EXPERT, Routing
from search_space.spec import FFNSpec

DENSE, SOFTMAX, SIGMOID = "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Dots1ForCausalLM"
# Of models that were cut.
FAMILIES: dict[Family, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Of the same with experts in all layers: the attention of these classes is that of the base's.
ROUTED_FAMILIES: dict[Family, str] = {
    "llama": "MixtralForCausalLM",
    "mistral": "MixtralForCausalLM",
    "qwen2": "Qwen2MoeForCausalLM",
    "qwen3": SOFTMAX,
}
Form = Literal["auto", "native", "custom"]  # of an export
DType = Literal["float32", "bfloat16"]  # of its weights
_FEW = 8  # experts a token that narrow ones are gathered into
# transformers multiplies experts in one grouped product, whose float32 rows are of 16 bytes.
ALIGNED = 4


@dataclass(frozen=True, kw_only=True)
class NativeForm:
    """A class of transformers that computes the same.

    architecture: its name.
    routing: how it picks experts.
    zero_units: hidden units of zeros a layer, which fill the class's shared expert up.
    llama_cpp: whether llama.cpp computes the same from it, too.
    """

    architecture: str
    routing: Routing
    zero_units: int = 0
    llama_cpp: bool = True

    @property
    def words(self) -> str:
        """In a line."""
        notes = []
        if self.zero_units:
            notes.append(f"{self.zero_units} hidden units of zeros a layer fill its shared expert")
        if not self.llama_cpp:
            other = "not normalise" if self.routing.normalize else "normalise"
            notes.append(f"llama.cpp would {other} the weights")
        return self.architecture + (f" ({'; '.join(notes)})" if notes else "")


@dataclass(frozen=True, kw_only=True)
class NoForm:
    """No class computes the same.

    why: in words, without the design's name.
    nearest: a design like it that has a native form.
    """

    why: str
    nearest: FFNSpec

    @property
    def words(self) -> str:
        """In a line."""
        return f"none: {self.why}; nearest: {self.nearest.label}"


def native_form(spec: FFNSpec, backbone: Backbone) -> NativeForm | NoForm:
    """The class that computes the same as a model of `spec` and `backbone`; else why none does."""
    base = backbone.foreign
    if base is not None:
        assert base.family != "ffn_nas"
        return _cut_form(spec, backbone, base, base.family)
    routing, reasons = _routing(spec), _reasons(spec, backbone)
    if reasons or routing is None:
        return NoForm(why=", ".join(reasons), nearest=_nearest(spec, backbone))
    if routing.score == "one":
        return NativeForm(architecture=DENSE, routing=routing)
    if routing.score == "softmax":
        # llama.cpp's graph of the class divides by the sum whatever the configuration says.
        return NativeForm(
            architecture=SOFTMAX,
            routing=routing,
            llama_cpp=routing.normalize or spec.n_experts == 1,
        )
    # The class has a shared expert always, one or more of the others wide.
    missing = -spec.shared_width % spec.expert_width
    zero_units = missing if spec.shared_width else spec.expert_width
    return NativeForm(architecture=SIGMOID, routing=routing, zero_units=zero_units)


def _cut_form(spec: FFNSpec, backbone: Backbone, base: Base, family: Family) -> NativeForm | NoForm:
    """The base's own class, where every layer has a dense FFN of one width; where every layer has
    experts, the class that has them around the same attention."""
    routing, reasons = _routing(spec), _cut_reasons(spec, backbone, base)
    if reasons or routing is None:
        active = max(1, round(spec.granularity * spec.expert_width))
        return NoForm(why=", ".join(reasons), nearest=pruned(backbone, active, "activation"))
    if routing == EVERY_EXPERT:
        return NativeForm(architecture=FAMILIES[family], routing=routing)
    architecture = ROUTED_FAMILIES[family]
    # llama.cpp's graph of Qwen2-MoE never divides by the sum, those of the others always do.
    divides = base.family != "qwen2"
    return NativeForm(
        architecture=architecture,
        routing=routing,
        # The class always has a shared expert.
        zero_units=0 if divides else ALIGNED,
        llama_cpp=routing.normalize == divides,
    )


def _cut_reasons(spec: FFNSpec, backbone: Backbone, base: Base) -> list[str]:
    """All that keeps a cut from being a class of transformers."""
    routing, everywhere = _routing(spec), spec.placement == "all"
    if routing == EVERY_EXPERT:
        alike = everywhere or spec.d_ff == backbone.reference_d_ff
        return [] if alike else ["its layers differ in width"]
    reasons = _routing_reasons(spec, backbone)
    if routing is None:
        return reasons
    words = f"the class of a {base.family} with experts"
    if routing.score == "sigmoid":
        reasons = [f"{words} weighs them by a softmax"]
    elif base.family in ("llama", "mistral") and not routing.normalize:
        reasons.append(f"{words} divides their weights by the sum")
    if base.activation != "silu":
        reasons.append(f"its experts are gated {base.activation}, and those of the class are silu")
    if not everywhere:
        reasons.append("its other layers keep the base's FFN")
    return reasons


def _routing(spec: FFNSpec) -> Routing | None:
    """The selection's own words. A method that derives from another's home and has a layer of its
    own does something else than that home says."""
    cls = type(spec.selection)
    home = next(each for each in cls.__mro__ if "native" in vars(each))
    return spec.selection.native(spec) if getattr(home, "layer", "") == cls.layer else None


def _reasons(spec: FFNSpec, backbone: Backbone) -> list[str]:
    """All that no class has."""
    reasons = []
    if spec.activation != "silu" or not spec.gated:
        kind = ("gated " if spec.gated else "plain ") + spec.activation
        reasons.append(f"its experts are {kind}, and those of the classes gated silu")
    if spec.depth > 1:
        reasons.append(f"it has {spec.depth} sub-layers in a layer")
    if spec.output_gate:
        reasons.append("gates weigh its experts' outputs")
    if spec.placement != "all":
        reasons.append("its other layers keep the plain FFN of the reference")
    return [*reasons, *_routing_reasons(spec, backbone)]


def _routing_reasons(spec: FFNSpec, backbone: Backbone) -> list[str]:
    routing = _routing(spec)
    if routing is None:
        return [f"no class selects as {spec.method} does"]
    if routing.score == "softmax" and routing.bias:
        return ["no class has softmax weights and a bias of the choice"]
    if routing.score == "softmax" and spec.shared_width:
        return ["no class has softmax weights and a shared expert"]
    if routing.score == "sigmoid" and spec.n_experts == 1:
        return ["the class of sigmoid weights wants two experts or more"]
    if routing.score == "one":
        return []
    widths = {"expert_width": spec.expert_width, "d_model": backbone.d_model}
    odd = [f"{name} {width}" for name, width in widths.items() if width % ALIGNED]
    return [f"the classes want multiples of {ALIGNED} for {' and '.join(odd)}"] if odd else []


def _nearest(spec: FFNSpec, backbone: Backbone) -> FFNSpec:
    """The design with as few changes as lead to a native form."""
    frame: dict[str, Any] = {
        "activation": "silu",
        "gated": True,
        "depth": 1,
        "output_gate": False,
        "placement": "all",
    }
    routing = _routing(spec)
    own = [_own(spec, routing)] if routing else []
    for fields in (*own, _routed(spec)):
        near = dataclasses.replace(spec, **frame, **fields)
        if not _reasons(near, backbone):
            return near
    # A model in which no experts fit: the FFN of what a token reads.
    active = max(1, round(spec.granularity * spec.expert_width) * spec.depth + spec.shared_width)
    return FFNSpec(d_ff=active, activation="silu", gated=True, lr_multiplier=spec.lr_multiplier)


def _own(spec: FFNSpec, routing: Routing) -> Mapping[str, Any]:
    """The selection as it is, or as its method changes it."""
    fields = dict(spec.selection.nearest_native(spec))
    if routing.score == "one":
        return fields
    return fields | _experts(spec.depth * spec.n_experts, spec.expert_width)


def _routed(spec: FFNSpec) -> Mapping[str, Any]:
    """A learned router over experts of about the same size, or over wider ones where they are
    narrow."""
    k, experts = max(1, round(spec.granularity)), (spec.depth * spec.n_experts, spec.expert_width)
    if spec.expert_width < MATRIX_ROWS:
        width = max(ALIGNED, k * spec.expert_width // _FEW)
        k, experts = _FEW, (max(_FEW, spec.d_ff // width), width)
    selection = next(m for name in names() if (m := find(name).learned(k)) is not None)
    return _experts(*experts) | {"selection": selection, "shared_width": 0}


def _experts(n_experts: int, width: int) -> dict[str, int]:
    """So many experts of about that width."""
    width = ALIGNED * max(1, round(width / ALIGNED))
    return {"d_ff": n_experts * width, "expert_width": width}
