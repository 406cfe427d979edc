"""The kernels of experts with gates on their outputs: of pairs, and of a few that all read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.catalog_entry import EXPERTS, FEW, HIDDEN, PER_TOKEN, TOKENS, WIDTH, Entry
from workers.kernels.triton import gated
from workers.kernels.triton import output_gate_units as units
from workers.kernels.triton import output_gate_vectors as vectors

TYPES = dict.fromkeys(("o_ptr", "u_ptr", "weight_ptr", "scale_ptr"), "*fp32")
TYPES |= dict.fromkeys(("dweight_ptr", "du_ptr", "do_ptr"), "*fp32") | {"end_ptr": "*i64"}
# Of experts of HIDDEN units, and of ones so wide that their kernels have more warps.
WIDTHS = {"": HIDDEN, ", wide": 2 * units.BLOCK}


def output_gates() -> Iterator[Entry]:
    """With a router's weights, with gated units and without."""
    for routed in (True, False):
        name = "pairs" if routed else "all tokens"
        for suffix, width in WIDTHS.items():
            yield from _units(f"{name}{suffix}", routed, width)
        yield from _vectors(name, routed)


def _call(routed: bool, width: int) -> tuple[units.Units, dict[str, int]]:
    """What a launch is asked with, without numbers, and its integers."""
    n_experts = EXPERTS if routed else FEW
    n_rows, columns = (TOKENS * PER_TOKEN, width) if routed else (TOKENS, FEW * width)
    u_BG = torch.empty(n_experts, width, device="meta")
    key_PX = torch.empty(n_rows, columns, device="meta")
    call = units.Units(key_PX, key_PX, u_BG, key_PX[0], u_BG[0] if routed else None)
    sizes = {"n_rows": n_rows, "n_experts": n_experts, "width": width, "stride_h": columns}
    return call, sizes | {"stride_p": columns if routed else 2 * columns}


def _units(name: str, routed: bool, width: int) -> Iterator[Entry]:
    call, sizes = _call(routed, width)
    configs, ends = call.configs, {} if routed else {"end_ptr": None}
    left: dict[str, Any] = {"h_ptr": None} if routed else {"scale_ptr": None}
    forward, backward = units.output_gates_kernel, units.output_gate_gradients_kernel
    for a in gated.ACTIVATIONS:
        fixed = call.flags | ends | {"ACTIVATION": a}
        yield Entry(f"output gates, {name} {a}", forward, configs, sizes, fixed | left, TYPES)
        back = fixed | {"RUN": call.run}
        yield Entry(f"output gate gradients, {name} {a}", backward, configs, sizes, back, TYPES)
    plain = fixed | {"GATED": False, "gate_ptr": None, "dgate_ptr": None, "RUN": call.run}
    ungated = f"output gate gradients, {name}, ungated {a}"
    yield Entry(ungated, backward, configs, sizes, plain, TYPES)


def _vectors(name: str, routed: bool) -> Iterator[Entry]:
    call, sizes = _call(routed, HIDDEN)
    n_experts = sizes["n_experts"]
    sizes |= {"n_units": n_experts * HIDDEN, "inner": WIDTH, "stride_w": WIDTH}
    sizes["n_parts"] = call.grid(call.run)[0]
    copied = dict.fromkeys(() if not routed else ("keys_ptr", "gates_ptr", "both_ptr"))
    forward, backward = vectors.output_vectors_kernel, vectors.output_vectors_gradient_kernel
    fixed = {"COPY": not routed} | copied
    yield Entry(f"output vectors, {name}", forward, vectors.CONFIGS, sizes, fixed, TYPES)
    back = {"ROUTED": routed, "RUN": call.run if routed else 1}
    back |= {"BLOCK_B": call.blocks["BLOCK_B"]} | ({} if routed else {"end_ptr": None})
    gradient = f"output vectors gradient, {name}"
    yield Entry(gradient, backward, vectors.GRADIENT_CONFIGS, sizes, back, TYPES)
