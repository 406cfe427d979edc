"""Whole training steps on a GPU, ours beside transformers', and how many trials should share one.

N sequences, L tokens of a sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch

from benchmarks.report import Row
from benchmarks.train import COARSE, DENSE, FINE, PROXY, Shape, transformers_model
from nas.running.gpu_sharing import probe
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Precision, Recipe
from search_space.cost import step_flops
from search_space.presets import dense, olmoe
from search_space.spec import FFNSpec
from workers.sharing import endless, measure
from workers.training.loop import Training

WARM_UP, STEPS, TURNS = 20, 20, 5
SEQUENCES = 32
# What a model for a user is like, beside the proxies: our products fill a GPU there.
LARGE = Shape(
    d_model=1024, n_layers=8, n_heads=16, vocab_size=32_000, seq_len=1024, hidden=512,
    experts=64, k=8,
)  # fmt: skip
# Name -> design, backbone, sequences of a step, and the shape that transformers builds alike.
CASES: dict[str, tuple[FFNSpec, Backbone, int, Shape | None]] = {
    "d 128 dense": (dense(PROXY), PROXY, SEQUENCES, None),
    "d 128 OLMoE": (olmoe(PROXY), PROXY, SEQUENCES, None),
    "d 256 dense": (DENSE.spec(), DENSE.backbone(), SEQUENCES, DENSE),
    "d 256, 64 experts of 64, k 8": (FINE.spec(), FINE.backbone(), SEQUENCES, FINE),
    "d 256, 8 experts of 512, k 2": (COARSE.spec(), COARSE.backbone(), SEQUENCES, COARSE),
    "d 1024, 64 experts of 512, k 8": (LARGE.spec(), LARGE.backbone(), 8, LARGE),
}


def training(
    spec: FFNSpec, backbone: Backbone, sequences: int, precision: Precision, device: str
) -> Training:
    """A trial's own training on random tokens, without a point of the curve in sight."""
    request = EvalRequest(
        evaluation=1,
        spec=spec,
        backbone=backbone,
        recipe=Recipe(batch_size=sequences, precision=precision),
        corpus_dir="",
        until_flops=1.0,
        device=device,
    )
    made: Training = endless(request)
    return made


def theirs(shape: Shape, sequences: int, precision: Precision, device: str) -> Callable[[], None]:
    """A step of transformers' model of that shape, as its users run it: autocast, fused AdamW."""
    model = transformers_model(shape, "grouped_mm" if shape.experts else "").to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    ids_NL = torch.randint(shape.vocab_size, (sequences, shape.seq_len), device=device)

    def step() -> None:
        with torch.autocast(torch.device(device).type, enabled=precision == "bfloat16"):
            loss = model(input_ids=ids_NL, labels=ids_NL, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(steps: dict[str, Callable[[], None]], device: str) -> dict[str, float]:
    """Seconds of a step by name: the median of turns of STEPS each."""

    def run(step: Callable[[], None], times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            step()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / times

    for step in steps.values():
        run(step, WARM_UP)
    turns = [{name: run(step, STEPS) for name, step in steps.items()} for _ in range(TURNS)]
    return {name: median(turn[name] for turn in turns) for name in steps}


def step_rows(precision: Precision, device: str, rate: float) -> Iterator[Row]:
    """Tokens a second of our steps, beside theirs, and the share of the GPU's arithmetic.

    rate: FLOPs a second of a large product.
    """
    for name, (spec, backbone, sequences, shape) in CASES.items():
        ours = training(spec, backbone, sequences, precision, device)
        steps = {"ours": ours.step}
        if shape is not None:
            steps["transformers"] = theirs(shape, sequences, precision, device)
        took = timed(steps, device)
        tokens = sequences * backbone.seq_len
        for whose, seconds in took.items():
            yield Row(f"{name}: {whose}", tokens / seconds, "tokens/s")
        if shape is not None:
            yield Row(
                f"{name}: ours against transformers", took["transformers"] / took["ours"], "x"
            )
        share = step_flops(spec, backbone, sequences) / took["ours"] / rate
        yield Row(f"{name}: model FLOPs, of the product's rate", share)
        if ours.graphed is not None:
            yield Row(f"{name}: CUDA graph", ours.graphed.why_not or "yes")


def sharing_rows(device: str, counts: tuple[int, ...] = (1, 2, 4, 8, 16)) -> Iterator[Row]:
    """How many of a study's trials should share the GPU."""
    found = measure(probe(PROXY, Recipe(), 6e12, device), counts)
    for count, rate in found.rates:
        yield Row(f"{count} trials a GPU", rate, "tokens/s in all")
    yield Row("trials that share a GPU", found.trials, found.why)


def toy() -> dict[str, tuple[FFNSpec, Backbone, int, Shape | None]]:
    """The first case at a size that a CPU does at once, for the tests."""
    shape = replace(DENSE, d_model=32, n_layers=1, n_heads=2, vocab_size=97, seq_len=16, hidden=64)
    return {"toy": (shape.spec(), shape.backbone(), 2, shape)}
