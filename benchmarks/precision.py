"""What bfloat16 does to results: runs of the dense design in float32 and in bfloat16, seed by seed.

`python -m benchmarks.precision --flops 6e12 --seeds 3 --json FILE`: d 128, 4 layers, on the
standard library's source or on `--corpus`. The mean of the seeds' differences is what
workers.precision.SHIFTS holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from statistics import mean, stdev

import torch

from benchmarks.report import Row, at_most, parser, publish
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Precision, Recipe
from search_space.corpus import CorpusSpec
from search_space.presets import PRESETS
from workers.corpus import prepare
from workers.device import resolve_device
from workers.evaluate import evaluate
from workers.kernels.bfloat16 import instructions
from workers.kernels.products import processor
from workers.precision import MOST_SHIFT

UNIT = "bits per byte"
BOTH: tuple[Precision, Precision] = ("float32", "bfloat16")


def rows(options: argparse.Namespace) -> list[Row]:
    """A row a run, then what bfloat16 moves: each seed, their mean with its bar, and how far single
    seeds of float32 lie apart."""
    backbone = Backbone(
        d_model=options.d_model,
        n_layers=options.layers,
        n_heads=4,
        vocab_size=1024,
        seq_len=128,
    )
    device = resolve_device("auto")
    place = f"{processor()}, {instructions() or 'no bfloat16'}" if device == "cpu" else device
    out = [Row("device", place), Row("FLOPs of a run", options.flops)]
    with tempfile.TemporaryDirectory() as cache:
        source = CorpusSpec(source=options.corpus)
        corpus = prepare(source, backbone.vocab_size, backbone.seq_len, cache)
        backbone = dataclasses.replace(backbone, vocab_size=corpus.meta["vocab_size"])
        asked = EvalRequest(
            evaluation=0,
            spec=PRESETS[options.preset](backbone),
            backbone=backbone,
            recipe=Recipe(batch_size=options.batch),
            corpus_dir=str(corpus.dir),
            until_flops=options.flops,
            device=device,
        )
        found: dict[str, list[float]] = {name: [] for name in BOTH}
        for seed in range(options.seeds):
            for name in BOTH:
                bits, seconds = run(dataclasses.replace(asked, seed=seed), name)
                found[name].append(bits)
                out.append(Row(f"{name}, seed {seed}", bits, UNIT))
                out.append(Row(f"{name}, seed {seed}: time", seconds, "s"))
    shifts = [b - a for a, b in zip(found["float32"], found["bfloat16"], strict=True)]
    out += [Row(f"shift, seed {seed}", shift, UNIT) for seed, shift in enumerate(shifts)]
    out.append(Row("shift, mean", mean(shifts), UNIT))
    out.append(at_most("shift of the mean, either way", abs(mean(shifts)), MOST_SHIFT, UNIT))
    if len(shifts) > 1:
        out.append(Row("deviation of a shift", stdev(shifts), UNIT))
        out.append(Row("deviation of a float32 seed", stdev(found["float32"]), UNIT))
    return out


def run(request: EvalRequest, precision: Precision) -> tuple[float, float]:
    """Bits per byte of a run, and its seconds."""
    recipe = dataclasses.replace(request.recipe, precision=precision)
    result = evaluate(dataclasses.replace(request, recipe=recipe), lambda point: None)
    if result.bits_per_byte is None:
        raise RuntimeError(f"the run did not finish: {result.error}")
    return result.bits_per_byte, result.seconds


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--flops", type=float, default=6e12, help="of a run")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--preset", default="dense", choices=PRESETS, help="the design")
    command.add_argument("--d-model", type=int, default=128)
    command.add_argument("--layers", type=int, default=4)
    command.add_argument("--batch", type=int, default=8, help="sequences a step")
    command.add_argument("--corpus", default="stdlib", help="a source, as in a study file")
    torch.set_num_threads(1)
    options = command.parse_args()
    sys.exit(publish(rows(options), options.json))
