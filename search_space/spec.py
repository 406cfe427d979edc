"""`FFNSpec`: one feed-forward design, with no weights.

Every design is one view of a key-value memory read in blocks (Liu et al. 2023,
arXiv 2305.13999): pick blocks S(x), weigh them by w(x), sum the blocks' outputs,

    y = sum over b in S(x) of w_b(x) * FFN_b(x).

A spec says how wide a block is (`expert_width`), how many there are (`n_experts`),
over how many sequential sub-layers the width is spread (`depth`), and how a token
picks its blocks (`selection`). A spec is frozen; a change is `dataclasses.replace`,
so validation always runs again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from search_space.checks import DIM, UNITS, flag, known_word, one_of, real, whole
from search_space.errors import SpecError, check_keys, require
from search_space.shown import shown

Activation = Literal["gelu", "relu", "silu"]
Gate = Literal["softmax", "sigmoid"]
QueryNorm = Literal["batch", "layer", "none"]
Values = Literal["peer", "pkm"]


# A spec's own errors are SpecErrors, which a search steps over.
_need = functools.partial(require, error=SpecError)
_whole = functools.partial(whole, error=SpecError)
_weight = functools.partial(real, least=0, error=SpecError)
_flag = functools.partial(flag, error=SpecError)


def _one_of(name: str, value: object, literal: Any) -> None:
    one_of(name, value, get_args(literal), SpecError)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How a token picks its blocks. Subclasses are the methods; `method` is their name."""

    method: ClassVar[str]

    def validate(self, spec: FFNSpec) -> None:
        """Raise SpecError unless this selection is legal in `spec`."""


@dataclass(frozen=True, kw_only=True)
class Dense(Selection):
    """Every block is read with weight 1 (the standard FFN; with an output gate, Finedeep)."""

    method: ClassVar[str] = "dense"


@dataclass(frozen=True, kw_only=True)
class TopK(Selection):
    """A learned router keeps k experts (Switch, Mixtral, OLMoE, DeepSeekMoE, sigma-MoE).

    gate: softmax or sigmoid of the router's logits.
    normalize: divide the kept weights by their sum (illegal with k = 1: no gradient).
    balance_weight: alpha of Switch's alpha * B * sum_b f_b P_b.
    z_weight: beta of beta * mean(logsumexp(z)^2).
    entropy_weight: gamma of sigma-MoE's sum p log p over the batch mean of softmax(z).
    bias_rate: u of DeepSeek-V3's bias balancing; 0 turns it off.
    """

    method: ClassVar[str] = "topk"
    k: int = 1
    gate: Gate = "softmax"
    normalize: bool = False
    balance_weight: float = 0.0
    z_weight: float = 0.0
    entropy_weight: float = 0.0
    bias_rate: float = 0.0

    def validate(self, spec: FFNSpec) -> None:
        _check_k(self.k, spec)
        _one_of("gate", self.gate, Gate)
        _flag("normalize", self.normalize)
        _need(
            not (self.normalize and self.k == 1),
            "normalize needs k of at least 2: with k = 1 every weight is 1 and the router "
            "gets no gradient; set normalize: false",
        )
        for name in ("balance_weight", "z_weight", "entropy_weight", "bias_rate"):
            _weight(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Hash(Selection):
    """k fixed tables from token id to expert (Roller et al. 2021); no gate, no auxiliary loss.

    balanced: fill the tables by token frequency in the training split; else at random.
    seed: of the tables.
    """

    method: ClassVar[str] = "hash"
    k: int = 1
    balanced: bool = True
    seed: int = 0

    def validate(self, spec: FFNSpec) -> None:
        _check_k(self.k, spec)
        _flag("balanced", self.balanced)
        _whole("seed", self.seed, least=0)


@dataclass(frozen=True, kw_only=True)
class AvgK(Selection):
    """Top-k by x . mean of the block's keys; no learned router (Liu et al. 2023)."""

    method: ClassVar[str] = "avgk"
    k: int = 1

    def validate(self, spec: FFNSpec) -> None:
        _check_k(self.k, spec)


@dataclass(frozen=True, kw_only=True)
class Direct(Selection):
    """Score every hidden unit by its pre-activation, keep the top k (VanillaM, Liu et al. 2023)."""

    method: ClassVar[str] = "direct"
    k: int = 1

    def validate(self, spec: FFNSpec) -> None:
        _need(
            spec.expert_width == 1,
            f"direct selection picks single hidden units: expert_width {spec.expert_width} "
            "must be 1 (use avgk for wider blocks)",
        )
        _check_k(self.k, spec)


@dataclass(frozen=True, kw_only=True)
class ProductKey(Selection):
    """Product-key retrieval of k of N experts by each head (PKM 2019, PEER 2407.04153).

    values: `peer` reads act(u . x) v, experts shared by the heads; `pkm` reads the value row.
    key_dim: width of a head's query; its halves meet sqrt(N) sub-keys each.
    query_norm: over tokens (`batch`, the default), over features (`layer`) or `none`.
    """

    method: ClassVar[str] = "product_key"
    heads: int = 8
    k: int = 16
    key_dim: int = 64
    gate: Gate = "softmax"
    query_norm: QueryNorm = "batch"
    values: Values = "peer"

    def validate(self, spec: FFNSpec) -> None:
        _whole("heads", self.heads, most=DIM)
        _whole("key_dim", self.key_dim, least=2, most=DIM)
        _need(self.key_dim % 2 == 0, f"key_dim is split in two halves: {self.key_dim} is odd")
        _one_of("gate", self.gate, Gate)
        _one_of("query_norm", self.query_norm, QueryNorm)
        _one_of("values", self.values, Values)
        root = math.isqrt(spec.n_experts)
        _need(
            root * root == spec.n_experts,
            f"product keys need a square number of experts: {spec.n_experts} is not; "
            f"nearest: {root * root}, {(root + 1) ** 2}",
        )
        _check_k(self.k, spec)
        if self.values == "pkm":
            _need(
                spec.expert_width == 1 and not spec.gated,
                "values: pkm reads single rows: expert_width must be 1 and gated false "
                f"(got {spec.expert_width}, {spec.gated}); or use values: peer",
            )


@dataclass(frozen=True, kw_only=True)
class StraightThrough(Selection):
    """Sigmoid gates with a threshold and straight-through gradients (DSMoE, 2502.12455).

    G(p) = p if p > tau else 0; training uses stop(G) + p - stop(p). Dense in training,
    ragged in inference; a token with every gate shut keeps the block of highest p (ours).
    sparsity_weight: lambda of lambda * mean G(p).
    renormalize: scale by n_experts / number of open blocks.
    """

    method: ClassVar[str] = "straight_through"
    tau: float = 0.5
    sparsity_weight: float = 1.0
    renormalize: bool = True

    def validate(self, spec: FFNSpec) -> None:
        _weight("tau", self.tau)
        _need(self.tau < 1, f"tau is a threshold on a sigmoid, in [0, 1): got {self.tau}")
        _weight("sparsity_weight", self.sparsity_weight)
        _flag("renormalize", self.renormalize)


@dataclass(frozen=True, kw_only=True)
class ReLURouting(Selection):
    """w = relu(x W_r); an L1 penalty steers the activity to a target (ReMoE, 2412.14711).

    target_activity: share of blocks that should be active.
    l1_start, l1_factor: the penalty's first coefficient and its step up or down. A run starts
        where l1_factor a step leads to 1 when its warmup ends, if that is above l1_start (ours).
    """

    method: ClassVar[str] = "relu_routing"
    target_activity: float = 0.25
    l1_start: float = 1e-8
    l1_factor: float = 1.2

    def validate(self, spec: FFNSpec) -> None:
        _weight("target_activity", self.target_activity)
        _need(
            0 < self.target_activity <= 1,
            f"target_activity is a share in (0, 1]: got {self.target_activity}",
        )
        _weight("l1_start", self.l1_start)
        _weight("l1_factor", self.l1_factor)
        _need(self.l1_start > 0, f"l1_start must be above 0: got {self.l1_start}")
        _need(self.l1_factor > 1, f"l1_factor must be above 1: got {self.l1_factor}")


def _check_k(k: object, spec: FFNSpec) -> None:
    _whole("k", k)
    _need(
        k <= spec.n_experts,  # type: ignore[operator]
        f"k must be at most the number of experts, {spec.n_experts} "
        f"(d_ff {spec.d_ff} / depth {spec.depth} / expert_width {spec.expert_width}): got {k}",
    )


SELECTIONS: dict[str, type[Selection]] = {
    cls.method: cls
    for cls in (Dense, TopK, Hash, AvgK, Direct, ProductKey, StraightThrough, ReLURouting)
}


@dataclass(frozen=True, kw_only=True)
class FFNSpec:
    """One feed-forward design.

    d_ff: hidden units of the selectable part, over all blocks and sub-layers.
    expert_width: hidden units of one block (g); 0 means one block a sub-layer.
    depth: sequential sub-layers (M) that share d_ff and shared_width evenly, each with
        its own RMSNorm, residual, selection and blocks.
    activation, gated: act(x K^T), or act(x G^T) * (x K^T) when gated.
    selection: how a token picks its blocks.
    shared_width: hidden units of an always-on FFN beside the selected blocks, over all sub-layers.
    output_gate: Finedeep's sigmoid(o_i . R_i) on each block's output (2502.12928).
    lr_multiplier: of the recipe's learning rates, for this FFN's parameters alone.
    """

    d_ff: int
    expert_width: int = 0
    depth: int = 1
    activation: Activation = "gelu"
    gated: bool = False
    selection: Selection = field(default_factory=Dense)
    shared_width: int = 0
    output_gate: bool = False
    lr_multiplier: float = 1.0

    def __post_init__(self) -> None:
        _whole("d_ff", self.d_ff, most=UNITS)
        _whole("depth", self.depth, most=DIM)
        if self.d_ff % self.depth:
            raise SpecError(
                f"depth must divide d_ff: {self.depth} does not divide {self.d_ff}; "
                f"nearest: {_nearest_divisors(self.d_ff, self.depth)}"
            )
        _whole("expert_width", self.expert_width, least=0, most=UNITS)
        width = self.d_ff // self.depth
        if self.expert_width == 0:
            object.__setattr__(self, "expert_width", width)
        if width % self.expert_width:
            raise SpecError(
                f"expert_width must divide d_ff/depth: {self.expert_width} does not divide "
                f"{width}; nearest: {_nearest_divisors(width, self.expert_width)}"
            )
        _one_of("activation", self.activation, Activation)
        _flag("gated", self.gated)
        _flag("output_gate", self.output_gate)
        _whole("shared_width", self.shared_width, least=0, most=UNITS)
        _need(
            self.shared_width % self.depth == 0,
            f"depth must divide shared_width: {self.depth} does not divide {self.shared_width}",
        )
        _weight("lr_multiplier", self.lr_multiplier)
        _need(self.lr_multiplier > 0, "lr_multiplier must be above 0: got 0")
        if not isinstance(self.selection, tuple(SELECTIONS.values())):
            raise SpecError(f"selection must be a Selection: got {shown(self.selection)}")
        self.selection.validate(self)
        _need(
            not (self.output_gate and (self.expert_width == 1 or self.method == "product_key")),
            f"an output gate needs whole blocks: selection {self.method} with expert_width "
            f"{self.expert_width} has none; set output_gate: false or widen the experts",
        )

    @property
    def method(self) -> str:
        """The selection method's name."""
        return self.selection.method

    @property
    def n_experts(self) -> int:
        """Blocks of one sub-layer (B)."""
        return self.d_ff // (self.depth * self.expert_width)

    @property
    def granularity(self) -> float:
        """Active width / expert width of a sub-layer (G of Krajewski et al. 2024): experts a token.

        It is k where a method has one, heads * k of product keys, and all experts of a dense
        design: 1 where its width is not cut. Of gates that decide by the token it is what is
        expected: target_activity of ReLU routing's experts, half of straight-through's (a sigmoid
        starts at 1/2). A shared FFN is not counted.
        """
        sel = self.selection
        k = getattr(sel, "k", None)
        if k is not None:
            return float(k * getattr(sel, "heads", 1))
        expected = 0.5 if self.method == "straight_through" else 1.0
        return self.n_experts * float(getattr(sel, "target_activity", expected))

    def canonical(self) -> FFNSpec:
        """The same function written one way: knobs that change nothing take their default."""
        spec = self
        if spec.method == "dense" and not spec.output_gate:
            # Experts of weight 1 and a shared FFN sum to one FFN; no spec is wider than UNITS.
            shared = spec.shared_width if spec.d_ff + spec.shared_width <= UNITS else 0
            spec = dataclasses.replace(
                spec,
                d_ff=spec.d_ff + shared,
                expert_width=0,
                shared_width=spec.shared_width - shared,
            )
        pkm = isinstance(spec.selection, ProductKey) and spec.selection.values == "pkm"
        if pkm and spec.shared_width == 0:
            spec = dataclasses.replace(spec, activation="gelu")  # value rows have none
        return spec

    @property
    def key(self) -> str:
        """A stable name of this design: equal for equal designs, in every process and version."""
        text = json.dumps(self.canonical().to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short name for people, such as `topk 8/64x64 gelu`."""
        sel = self.selection
        blocks = f"{self.n_experts}x{self.expert_width}"
        k = getattr(sel, "k", None)
        heads = getattr(sel, "heads", None)
        if k is not None:
            blocks = f"{k}/{blocks}" if heads is None else f"{heads}h{k}/{blocks}"
        act = {"gelu": "geglu", "silu": "swiglu", "relu": "reglu"}[self.activation]
        parts = [self.method, blocks, act if self.gated else self.activation]
        if isinstance(sel, ProductKey):
            parts[0] = sel.values
        if getattr(sel, "gate", "softmax") == "sigmoid":
            parts.append("sigmoid")
        if isinstance(sel, StraightThrough):
            parts.append(f"lambda={sel.sparsity_weight:g}")
        if self.depth > 1:
            parts.append(f"depth={self.depth}")
        if self.output_gate:
            parts.append("out-gate")
        if self.shared_width:
            parts.append(f"shared={self.shared_width}")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `from_dict` reads it back."""
        out: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "selection"
        }
        # Whole-valued weights are written as floats so that 1 and 1.0 have one key.
        out["lr_multiplier"] = float(self.lr_multiplier)
        out["selection"] = {"method": self.method} | {
            f.name: float(v) if f.type == "float" else v
            for f in dataclasses.fields(self.selection)
            for v in [getattr(self.selection, f.name)]
        }
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FFNSpec:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        if not isinstance(data, Mapping):
            raise SpecError(f"a spec is a mapping of its fields: got {shown(data)}")
        check_keys("spec", data, [f.name for f in dataclasses.fields(cls)])
        _need("d_ff" in data, "a spec needs d_ff, its hidden width: none given")
        fields = dict(data)
        fields["selection"] = selection_from_dict(data.get("selection", {"method": "dense"}))
        return cls(**fields)


def selection_from_dict(data: Mapping[str, Any] | str) -> Selection:
    """`{"method": "topk", "k": 2}` or just `"topk"` -> the Selection."""
    if isinstance(data, str):
        data = {"method": data}
    if not isinstance(data, Mapping):
        raise SpecError(f"selection is a name or a mapping: got {shown(data)}")
    method = known_word("selection", data.get("method"), SELECTIONS, "method", SpecError)
    cls = SELECTIONS[method]
    knobs = {k: v for k, v in data.items() if k != "method"}
    check_keys(f"selection {method}", knobs, [f.name for f in dataclasses.fields(cls)])
    return cls(**knobs)


def _nearest_divisors(n: int, wanted: int) -> str:
    """The largest divisor of n up to `wanted` and the smallest above it."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    divisors = [*small, *(n // d for d in small)]
    below = max(d for d in divisors if d <= wanted)
    above = min((d for d in divisors if d > wanted), default=n)
    return f"{below}, {above}" if below != above else str(below)
