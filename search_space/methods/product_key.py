"""Product keys: each head retrieves k of N experts (PKM, 1907.05242; PEER, 2407.04153)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from search_space.checks import DIM
from search_space.design import (
    Chosen,
    Design,
    Gate,
    Method,
    Plan,
    Shape,
    check_k,
    need,
    one_of,
    whole,
)
from search_space.domain import Choices, Match, Numbers
from search_space.errors import require
from search_space.experts import MATRIX_ROWS, UNIT_FRAME, experts, ordered, saved_reads
from search_space.parameter import Condition, Knobs, asked
from search_space.prices import INDEX, Cost, matrix, parameters, saved, search

QueryNorm = Literal["batch", "layer", "none"]
Values = Literal["peer", "pkm"]

_PEER = Condition("values peer", lambda chosen: chosen["product_key.values"] == "peer")
_ACTIVATED = Condition(
    "values peer, or shared_width above 0",
    lambda chosen: chosen["product_key.values"] == "peer" or chosen["shared_width"] > 0,
)


@dataclass(frozen=True, kw_only=True)
class ProductKeyKnobs(Knobs):
    """Of `ProductKey`; heads and k are numbers, as in the papers, whatever the reference width is.

    expansion: number of experts / (heads * k), rounded to a square.
    key_dim: width of a query / d_model (PKM has a half), rounded down to an even number.
    expert_width: of `values: peer`.
    """

    method = "product_key"
    values: Choices = asked(("peer", "pkm"), "experts with keys, or value rows", shape=True)
    heads: Choices = asked((4, 8), "retrievals a token", shape=True)
    key_dim: Numbers = asked((0.25, 0.5), "width of a query / d_model", shape=True, ratio=True)
    gate: Choices = asked(("softmax", "sigmoid"), "weights from the scores")
    query_norm: Choices = asked(("batch", "layer", "none"), "normalisation of the queries")
    expert_width: Choices = asked(
        (1, 4), "hidden units of an expert", when=_PEER, shape=True, least=1
    )
    expansion: Numbers = asked(
        (8.0, 32.0),
        "experts / (heads * k), to a square",
        match=("free", "active_flops"),
        shape=True,
        least=1,
    )
    k: Choices = asked((8, 16, 32), "experts a head", match=("free", "total_params"), shape=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for ratio in self.key_dim:
            require(
                0 < ratio <= 8,
                f"space.product_key.key_dim is a ratio of d_model in (0, 8]: got {ratio:g}; "
                "0.5 is PKM's",
            )


@dataclass(frozen=True, kw_only=True)
class ProductKey(Method):
    """The k best of N experts by each head.

    heads: retrievals a token, each with its own queries and sub-keys.
    k: experts a head.
    key_dim: width of a head's query; its halves meet sqrt(N) sub-keys each.
    gate: softmax or sigmoid of the scores.
    query_norm: over tokens (`batch`, the default), over features (`layer`) or `none`.
    values: `peer` reads act(u . x) v, experts shared by the heads; `pkm` reads the value row.
    """

    method = "product_key"
    layer = "workers.layers.product_key:ProductKeySelection"
    asks = (
        *(f"product_key.{key}" for key in ("values", "heads", "key_dim", "gate", "query_norm")),
        "product_key.expert_width",
        *UNIT_FRAME,
        "product_key.expansion",
        "product_key.k",
    )
    knobs = ProductKeyKnobs
    when: ClassVar[Mapping[str, Condition]] = {"gated": _PEER, "activation": _ACTIVATED}
    order = 6
    whole_experts: ClassVar[bool] = False
    heads: int = 8
    k: int = 16
    key_dim: int = 64
    gate: Gate = "softmax"
    query_norm: QueryNorm = "batch"
    values: Values = "peer"

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        whole("heads", self.heads, most=DIM)
        whole("key_dim", self.key_dim, least=2, most=DIM)
        need(self.key_dim % 2 == 0, f"key_dim is split in two halves: {self.key_dim} is odd")
        one_of("gate", self.gate, Gate)
        one_of("query_norm", self.query_norm, QueryNorm)
        one_of("values", self.values, Values)
        root = math.isqrt(spec.n_experts)
        need(
            root * root == spec.n_experts,
            f"product keys need a square number of experts: {spec.n_experts} is not; "
            f"nearest: {root * root}, {(root + 1) ** 2}",
        )
        check_k(self.k, spec)
        need(
            not self.value_rows or (spec.expert_width == 1 and not spec.gated),
            "values: pkm reads single rows: expert_width must be 1 and gated false "
            f"(got {spec.expert_width}, {spec.gated}); or use values: peer",
        )

    def canonical(self, spec: Design) -> Mapping[str, Any]:
        """Value rows have no activation; a shared FFN has."""
        return {"activation": "gelu"} if self.value_rows and spec.shared_width == 0 else {}

    @property
    def rate_factor(self) -> float:
        """Lower rates are better for small experts, by measurement; not for bare value rows."""
        return 0.7 if self.values == "peer" else 1.0

    @property
    def title(self) -> str:
        """By the paper that reads the values so."""
        return self.values

    @property
    def notes(self) -> list[str]:
        """The gate, when it is not the common one."""
        return ["sigmoid"] if self.gate == "sigmoid" else []

    @property
    def value_rows(self) -> bool:
        """With `values: pkm`."""
        return self.values == "pkm"

    @classmethod
    def plan(cls, chosen: Chosen) -> Plan:
        """Grows the number of experts under `total_params`, k under `active_flops`."""
        own, heads = cls.own(chosen), chosen["product_key.heads"]
        own["key_dim"] = max(2, 2 * int(own["key_dim"] * chosen.d_model / 2))
        width = chosen.params.get("product_key.expert_width", 1)
        k = own.pop("k", None)

        def shape(root: int, k: int) -> Shape:
            root = max(root, math.isqrt(k) + 1)  # more experts than one head reads
            return Shape(
                n_experts=root * root,
                expert_width=width,
                active=heads * k * width,
                selection=ProductKey(k=k, **own),
            )

        if chosen.match == "total_params":
            least = math.isqrt(k)
            return Plan(build=lambda n: shape(least + n, k))
        expansion = chosen["product_key.expansion"]
        return Plan(
            build=lambda n: shape(round(math.sqrt(heads * n * expansion)), n),
            expansion=expansion,
            n=k,
        )

    def resized(self, spec: Design, match: Match, n: int) -> Mapping[str, Any]:
        """As in `plan`: more experts under `total_params`, more of them a head else."""
        if match == "total_params":
            return {"d_ff": spec.depth * n * n * spec.expert_width}
        return {"selection": dataclasses.replace(self, k=n)}

    def scaled(self, spec: Design, growth: float, n: int) -> Mapping[str, Any]:
        """As in `plan`: queries grow with the model, and the experts with those that a head reads.

        More of them, for they are units and have no width that may grow.
        """
        root = max(round(math.sqrt(spec.n_experts * n / self.k)), math.isqrt(n - 1) + 1)
        key_dim = max(2, 2 * round(self.key_dim * growth / 2))
        return {
            "d_ff": spec.depth * root * root * spec.expert_width,
            "selection": dataclasses.replace(self, k=n, key_dim=key_dim),
        }

    def pins(self, spec: Design) -> dict[str, Any]:
        """A space has key_dim as a ratio, which is searched."""
        pinned = super().pins(spec) | {"product_key.expert_width": spec.expert_width}
        del pinned["product_key.key_dim"]
        return pinned

    def reads(self, spec: Design) -> float:
        """Of all heads."""
        return self.heads * self.k

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """Queries, the search among both halves' sub-keys, and what the heads read."""
        n = spec.n_experts
        root = math.isqrt(n)
        reads, queries = self.heads * self.k, self.heads * self.key_dim
        # All sub-keys of both halves are scored; backward, the chosen ones get a gradient alone.
        # (On a GPU the others' zeros are multiplied too: that is how it is done there, not what
        # must be.)
        scores = search(self.key_dim, self.heads * root) + parameters(queries * root)
        scores += Cost(training_flops=2 * 2.0 * reads * self.key_dim)
        # Kept are the queries before and after their norm, the choices and their weights.
        cost = matrix(d_model, queries) + scores
        cost += saved(queries * (1 + (self.query_norm != "none")) + reads * (INDEX + 1))
        if self.value_rows:
            return cost + matrix(d_model, n, used=reads / n) + saved(reads * ordered(reads, n))
        cost += experts(spec, d_model, used=reads / n)
        # Its weights come in the order of tokens: rows that are narrow keep what they weigh alone.
        weighted = spec.expert_width if spec.expert_width < MATRIX_ROWS else 2
        return cost + saved_reads(spec, d_model, reads, weighted=False) + saved(reads * weighted)
