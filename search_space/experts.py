"""Experts: what the methods over whole ones share, and what experts of every kind cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search_space.design import Chosen, Design, Method, Plan, Shape
from search_space.errors import SpecError
from search_space.prices import INDEX, Cost, matrix, saved

ORDER = 3  # of a pair in row order: its row, token and place, each an int32
# Of a table's rows the part that a token reads, from which a CPU multiplies all of them: products
# then take less time than so many reads (docs/speed.md), and want no order.
MUCH = 8
# Experts at least this wide are matrices to products and to the optimizer; narrower ones are rows.
MATRIX_ROWS = 8
# What a space asks of designs whose experts are read as wholes, and of those with single units.
FRAME = ("depth", "output_gate", "shared_width", "activation", "gated", "lr_multiplier")
UNIT_FRAME = tuple(name for name in FRAME if name != "output_gate")


def widened(
    chosen: Chosen, n_experts: int, active: int, selection: Method
) -> Callable[[int], Shape]:
    """Experts whose width grows, `active` of which a token reads: what a Plan builds."""

    def build(n: int) -> Shape:
        width = n * chosen.multiple
        return Shape(
            n_experts=n_experts, expert_width=width, active=active * width, selection=selection
        )

    return build


@dataclass(frozen=True, kw_only=True)
class ExpertMethod(Method):
    """A method over experts whose width is fitted: `granularity` of them are active.

    The number of experts is granularity * expansion (Krajewski et al. 2024).
    """

    @classmethod
    def expansion(cls, chosen: Chosen) -> float:
        """Total / active width."""
        return float(chosen["expansion"])

    @classmethod
    def select(cls, chosen: Chosen) -> Method:
        """The selection; here granularity is its k."""
        return cls(k=chosen["granularity"], **cls.own(chosen))  # type: ignore[call-arg]

    @classmethod
    def plan(cls, chosen: Chosen) -> Plan:
        """Grows the expert width."""
        granularity, expansion = chosen["granularity"], cls.expansion(chosen)
        n_experts = round(granularity * expansion)
        if not math.isclose(n_experts, granularity * expansion):
            raise SpecError(
                "granularity * expansion is the number of experts, a whole number: "
                f"got {granularity} * {expansion:g}"
            )
        if n_experts == 1:
            raise SpecError(
                f"{cls.method} over one expert selects nothing: granularity {granularity} * "
                f"expansion {expansion:g} is 1; raise one of them, or use the dense method"
            )
        build = widened(chosen, n_experts, granularity, cls.select(chosen))
        return Plan(build=build, expansion=expansion)

    def pins(self, spec: Design) -> dict[str, Any]:
        """As every method's; k is the granularity."""
        k = getattr(self, "k", None)
        return super().pins(spec) | ({} if k is None else {"granularity": k})


def experts(spec: Design, d_model: int, *, used: float, trained: float | None = None) -> Cost:
    """The experts of one sub-layer when a token reads the share `used` of them."""
    width = spec.n_experts * spec.expert_width
    n_matrices = 3 if spec.gated else 2
    cost = matrix(d_model, width, used=used, trained=trained).times(n_matrices)
    if spec.output_gate:
        cost += matrix(d_model, spec.n_experts, used=used, trained=trained)
    return cost


def hidden_floats(spec: Design, *, weighted: bool) -> int:
    """Numbers that plain operations keep for one hidden unit: before and after the activation
    (ReLU's backward needs the output alone), the gate's product, and the weighted one."""
    return (1 if spec.activation == "relu" else 2) + 2 * spec.gated + weighted


def pre_activations(spec: Design) -> int:
    """Numbers that the fused operation keeps for one hidden unit; it makes the rest anew."""
    return 1 + spec.gated


def saved_full(spec: Design, d_model: int, *, weighted: bool) -> Cost:
    """Kept by experts that every token reads in full."""
    n_experts, width = spec.n_experts, spec.expert_width
    if spec.output_gate:
        hidden = width * hidden_floats(spec, weighted=False)
        return saved(n_experts * (hidden + d_model + 2 * weighted))
    return saved(n_experts * (width * pre_activations(spec) + weighted))


def saved_reads(spec: Design, d_model: int, reads: float, *, weighted: bool) -> Cost:
    """Kept by experts of which a token reads `reads`: as rows when narrow, fused when wide; with an
    output gate, a copy of the token, the expert's output and both sides of the gate for each."""
    width = spec.expert_width
    if spec.output_gate:
        hidden = width * hidden_floats(spec, weighted=False)
        return saved(reads * (hidden + 3 * d_model + INDEX + 2 * weighted))
    if width < MATRIX_ROWS:
        hidden = width * hidden_floats(spec, weighted=weighted)
        order = ordered(reads, spec.n_experts)
        # Weights are put in the order of experts, and back into that of tokens by an index.
        return saved(reads * (hidden + order * width + (2 + INDEX) * weighted))
    return saved(reads * (width * pre_activations(spec) + INDEX + 2 * weighted))


def ordered(reads: float, n_rows: int) -> int:
    """Numbers of four bytes that a row's read keeps to be found again, where a token reads so many
    of a table's rows."""
    return 1 if MUCH * reads >= n_rows else ORDER
