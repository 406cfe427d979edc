"""What a GPU's training step launches, moves and asks, by a trace that needs no GPU.

Each preset's whole step is traced (benchmarks.step_trace). Launches a layer are those of forward
and backward of two depths, subtracted: every operation counts as one, but for those of torch that
are known to be several, and for its grouped ones, which launch once for as many tensors as a kernel
takes. Bytes are each operation's tensors, once each. Predicted times are the slower of bytes and
FLOPs at data-sheet rates, and do not know what a launch costs: that is a line of its own.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from benchmarks.report import Row, at_most, parser, publish
from benchmarks.roofline import DEVICES
from benchmarks.step_trace import Trace, on_a_gpu, training_of
from search_space.backbone import Backbone
from search_space.contract import Precision
from search_space.cost import step_flops
from search_space.presets import PRESETS
from workers.model import ProxyLM
from workers.training.muon import PERIOD

BACKBONE = Backbone(d_model=128, n_layers=4, n_heads=4, vocab_size=1024, seq_len=128)
BATCH = 8
MOST_LAUNCHES = 40  # a layer, forward and backward
# A launch by Python and torch, and one inside a graph: common figures, not measured here.
EAGER, IN_GRAPH = 5e-6, 1.5e-6
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
LAYERS, REST = "forward and backward", "optimizer"


def traced(name: str, backbone: Backbone, precision: Precision) -> tuple[Trace, float]:
    """A step after the first, and what the optimizer's products are in FLOPs."""
    spec = PRESETS[name](backbone)
    model, trace = ProxyLM(spec, backbone), Trace()
    model.set_token_counts(torch.arange(backbone.vocab_size))
    with on_a_gpu(trace) as fake:
        training = training_of(model, spec, BATCH, precision, fake)
        learn = training.batch_step

        def batch_step(*arguments):
            trace.part = LAYERS
            loss = learn(*arguments)
            trace.part = REST
            return loss

        training.batch_step = batch_step
        for _ in range(PERIOD):  # the first makes the moments
            trace.parts.clear()
            training.step()
    return trace, training.optimizers.flops_a_step


def launches_a_layer(name: str, precision: Precision) -> int:
    """Forward and backward of a layer that has the design."""
    one, two = (
        traced(name, dataclasses.replace(BACKBONE, n_layers=n), precision)[0] for n in (2, 4)
    )
    return (two.parts[LAYERS].count - one.parts[LAYERS].count) // 2


def preset_rows(name: str, precision: Precision) -> Iterator[Row]:
    """Of one preset."""
    try:
        trace, optimizer_flops = traced(name, BACKBONE, precision)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        yield Row(f"{name}: host reads", f"at {error.func}", bar="<= 0", holds=False)
        return
    yield at_most(f"{name}: host reads", 0, 0)
    for each in PRECISIONS:
        row = f"{name}: launches a layer, {each}"
        yield at_most(row, launches_a_layer(name, each), MOST_LAUNCHES)
    layers, rest = trace.parts[LAYERS], trace.parts[REST]
    launches, moved = layers.count + rest.count, layers.moved + rest.moved
    flops = step_flops(PRESETS[name](BACKBONE), BACKBONE, BATCH) + optimizer_flops
    yield Row(f"{name}: launches a step", launches)
    yield Row(f"{name}: moved", moved / 1e6, "MB")
    yield Row(f"{name}: launches one by one", 1e6 * launches * EAGER, "µs")
    yield Row(f"{name}: launches in a graph", 1e6 * launches * IN_GRAPH, "µs")
    for device in DEVICES[:2]:
        arithmetic = flops / device.flops
        slower = max(moved / device.bandwidth, arithmetic)
        yield Row(f"{name}: predicted, {device.name}", 1e6 * slower, "µs")
        yield Row(f"{name}: arithmetic alone, {device.name}", 1e6 * arithmetic, "µs")


def rows(names: list[str], precision: Precision) -> Iterator[Row]:
    """Of all presets."""
    for name in names:
        yield from preset_rows(name, precision)


def markdown(found: list[Row]) -> str:
    """The rows as a table, a preset a line."""
    by_name: dict[str, dict[str, Row]] = {}
    for row in found:
        name, _, what = row.name.partition(": ")
        by_name.setdefault(name, {})[what] = row
    columns = list(dict.fromkeys(what for known in by_name.values() for what in known))
    units = {what: row.unit for known in by_name.values() for what, row in known.items()}
    heads = [f"{what}, {units[what]}" if units[what] else what for what in columns]
    lines = [["preset", *heads], ["---"] * (1 + len(columns))]
    for name, known in by_name.items():
        lines.append([name, *(_cell(known.get(what)) for what in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    value = f"{row.value:,.4g}" if isinstance(row.value, float) else str(row.value)
    return value if row.holds else f"{value} (bar {row.bar})"


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    command = parser(__doc__)
    command.add_argument("--precision", choices=PRECISIONS, default="bfloat16")
    command.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    command.add_argument("--markdown", type=Path, metavar="FILE", help="a table for documents")
    options = command.parse_args(arguments)
    found = list(rows(options.presets, options.precision))
    if options.markdown is not None:
        options.markdown.write_text(markdown(found) + "\n")
    return publish(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
