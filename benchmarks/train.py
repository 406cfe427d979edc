"""Whole training steps, ours beside transformers' of the same shape, on one CPU thread.

Forward, backward and optimizer, float32; ours with the trial's own step and products, theirs with
AdamW. All take turns in one process with products of a 512 cube by the fastest library, and a ratio
is the median over the turns. Two trials at once are processes of one thread each. `python -m
benchmarks.train --json FILE`; `--profile` says where a step's time goes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.products import FLOPS, OTHER, best_rate, cubes
from benchmarks.report import Row, at_least, parser, publish
from benchmarks.turns import TURNS, WARM_UP, Call, ratio, take_turns
from search_space.backbone import Backbone
from search_space.contract import Precision, Recipe
from search_space.cost import step_flops
from search_space.methods.topk import TopK
from search_space.presets import dense, olmoe
from search_space.rates import AT_BASE
from search_space.spec import FFNSpec
from workers.kernels.dispatch import chosen_products
from workers.model import ProxyLM
from workers.precision import why_not
from workers.training.loop import train_step
from workers.training.optimizers import Optimizers

BATCH = 8  # sequences of a step with d 256


@dataclass(frozen=True)
class Shape:
    """A model both sides build. experts 0 is a dense FFN of width `hidden`."""

    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    vocab_size: int = 4096
    seq_len: int = 256
    hidden: int = 1024
    experts: int = 0
    k: int = 0

    def backbone(self) -> Backbone:
        """The proxy around the FFN."""
        return Backbone(
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            vocab_size=self.vocab_size,
            seq_len=self.seq_len,
        )

    def spec(self) -> FFNSpec:
        """SwiGLU, dense or routed as OLMoE's (softmax gate, balance and z losses)."""
        if not self.experts:
            return FFNSpec(d_ff=self.hidden, activation="silu", gated=True)
        selection = TopK(k=self.k, balance_weight=0.01, z_weight=0.001)
        d_ff = self.experts * self.hidden
        return FFNSpec(
            d_ff=d_ff, expert_width=self.hidden, activation="silu", gated=True, selection=selection
        )


DENSE = Shape()
FINE = Shape(hidden=64, experts=64, k=8)
COARSE = Shape(hidden=512, experts=8, k=2)
# A peer's bars: where another library than torch's default is faster, and elsewhere.
Bars = tuple[float, float]
LLAMA: Bars = (1.5, 1.05)
OLMOE: Bars = (1.8, 1.2)

PROXY = Backbone(d_model=128, n_layers=4, n_heads=4, vocab_size=1024, seq_len=128)
DEMO = Backbone(d_model=64, n_layers=2, n_heads=4, vocab_size=1024, seq_len=128)
# Name -> design, backbone, sequences of a step, the bar of its share of the products' rate.
PROXIES: dict[str, tuple[FFNSpec, Backbone, int, float]] = {
    "d 128 dense": (dense(PROXY), PROXY, 8, 0.5),
    "d 128 OLMoE": (olmoe(PROXY), PROXY, 8, 0.4),
    "d 64 dense, 8 sequences": (dense(DEMO), DEMO, 8, 0.35),
    "d 64 dense, the demo's 4 sequences": (dense(DEMO), DEMO, 4, 0.35),
}
# Name -> design, backbone, sequences of a step that is timed in both precisions.
NARROW: dict[str, tuple[FFNSpec, Backbone, int]] = {
    "d 128 dense": (dense(PROXY), PROXY, 8),
    "d 128 OLMoE": (olmoe(PROXY), PROXY, 8),
    "dense 1024": (DENSE.spec(), DENSE.backbone(), BATCH),
    "64 experts of 64, k 8": (FINE.spec(), FINE.backbone(), BATCH),
    "8 experts of 512, k 2": (COARSE.spec(), COARSE.backbone(), BATCH),
}
LEAST_GAIN = 1.3  # of bfloat16, for d 128 and wider


class Ours:
    """A proxy with the trial's own training step and products."""

    def __init__(self, spec: FFNSpec, backbone: Backbone, precision: Precision = "float32") -> None:
        torch.manual_seed(0)
        self.model = ProxyLM(spec, backbone).train()
        self.optimizers = Optimizers(self.model, Recipe(), AT_BASE, lr_multiplier=1.0)
        self.precision, self.optimizer_seconds = precision, 0.0

    def step(self, inputs_NL: np.ndarray, targets_NL: np.ndarray) -> None:
        """Forward, backward, update."""
        with chosen_products("cpu"):
            train_step(self.model, inputs_NL, targets_NL, "cpu", self.precision)
            began = time.thread_time()
            # A tiny rate: the weights, and with them the routing, stay much as they were.
            self.optimizers.step(1e-3)
            self.optimizer_seconds = time.thread_time() - began


class Theirs:
    """A model of transformers under fused AdamW."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(self, inputs_NL: np.ndarray, targets_NL: np.ndarray) -> None:
        """Forward, backward, update; the model shifts its labels itself."""
        ids_NL = torch.from_numpy(inputs_NL)
        self.model(input_ids=ids_NL, labels=ids_NL, use_cache=False).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def transformers_model(shape: Shape, experts_form: str = "") -> nn.Module:
    """Llama for a dense shape, OLMoE for a routed one, with random weights."""
    import transformers

    torch.manual_seed(0)
    common: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_heads,
        "max_position_embeddings": shape.seq_len,
        "tie_word_embeddings": True,
        "attn_implementation": "sdpa",
    }
    if not shape.experts:
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
    config = transformers.OlmoeConfig(
        **common,
        num_experts=shape.experts,
        num_experts_per_tok=shape.k,
        output_router_logits=True,
        experts_implementation=experts_form,
    )
    return transformers.OlmoeForCausalLM(config)


def batches(backbone: Backbone, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and targets of n sequences, (N, L) each."""
    ids = np.random.default_rng(seed).integers(backbone.vocab_size, size=(n, backbone.seq_len + 1))
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def rows() -> list[Row]:
    """A row a ratio, with its bar."""
    torch.set_num_threads(1)
    out = compare("dense 1024", DENSE, 0.6, {"": LLAMA}, "transformers Llama")
    out += compare("64 experts of 64, k 8", FINE, 0.5, {"grouped_mm": OLMOE}, "OLMoE")
    out += compare("8 experts of 512, k 2", COARSE, 0.5, {"grouped_mm": OLMOE}, "OLMoE")
    for name, (spec, backbone, n, bar) in PROXIES.items():
        ours, batch = Ours(spec, backbone), batches(backbone, n)
        out += measure(name, ours, batch, step_flops(spec, backbone, n), bar)[0]
    out += narrow_rows()
    out.append(at_least("two trials at once, tokens/s against one", two_trials(), 1.85, "x"))
    return out


def compare(name: str, shape: Shape, share: float, bars: dict[str, Bars], peer: str) -> list[Row]:
    """Our step, and how many times the tokens a second of each form of the peer it makes.

    share: the bar of our model FLOPs a second beside the products' rate.
    """
    spec, backbone = shape.spec(), shape.backbone()
    batch = batches(backbone, BATCH)
    theirs = [Theirs(transformers_model(shape, form)) for form in bars]
    calls = [lambda t=t: t.step(*batch) for t in theirs]
    flops = step_flops(spec, backbone, BATCH)
    out, own, others, gain = measure(name, Ours(spec, backbone), batch, flops, share, calls)
    for (form, (faster, elsewhere)), seconds in zip(bars.items(), others, strict=True):
        label = f"{name}: tokens/s against {' '.join((peer, form)).strip()}"
        bar = faster if gain >= OTHER else elsewhere
        out.append(at_least(label, ratio(seconds, own), bar, "x"))
    return out


def measure(
    name: str,
    ours: Ours,
    batch: tuple[np.ndarray, np.ndarray],
    flops: float,
    bar: float,
    others: Sequence[Call] = (),
) -> tuple[list[Row], list[float], list[list[float]], float]:
    """Rows of our step; its seconds, those of the other calls, and how many times faster than
    torch's default the fastest library is.

    flops: of the model in a step.
    bar: of its FLOPs a second, the optimizer's time included, beside the products' rate.
    """
    shares: list[float] = []

    def step() -> None:
        began = time.thread_time()
        ours.step(*batch)
        shares.append(ours.optimizer_seconds / (time.thread_time() - began))

    own, *rest = take_turns([step, *others, *cubes()])
    fastest, gain = best_rate(rest[len(others) :])
    out = [
        Row(f"{name}: a step", 1e3 * median(own), "ms"),
        Row(
            f"{name}: R, a 512 cube by the fastest library",
            1e-9 * FLOPS / median(fastest),
            "GFLOP/s",
        ),
        Row(f"{name}: that library against torch's default", gain, "x"),
        Row(f"{name}: model FLOPs a second", 1e-9 * flops / median(own), "GFLOP/s"),
        at_least(f"{name}: share of R", ratio(fastest, own) * flops / FLOPS, bar),
        Row(f"{name}: optimizer's share of the step", median(shares[WARM_UP:])),
    ]
    return out, own, rest[: len(others)], gain


def narrow_rows() -> list[Row]:
    """How many times faster than in float32 our whole step is in bfloat16, where the CPU has it."""
    fault = why_not("cpu")
    if fault:
        return [Row("bfloat16", fault)]
    out = []
    for name, (spec, backbone, n) in NARROW.items():
        batch, kinds = batches(backbone, n), ("float32", "bfloat16")
        steps = [functools.partial(Ours(spec, backbone, p).step, *batch) for p in kinds]
        wide, narrow = take_turns([*steps])
        out.append(Row(f"{name} in bfloat16: a step", 1e3 * median(narrow), "ms"))
        label = f"{name} in bfloat16: against float32"
        out.append(at_least(label, ratio(wide, narrow), LEAST_GAIN, "x"))
    return out


def two_trials(turns: int = TURNS) -> float:
    """Tokens a second of two processes at once over those of one, each on one thread."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pipes = []
        for _ in range(2):
            here, there = context.Pipe()
            process = context.Process(target=_steps_on_request, args=(there,), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(here.send, 0)
            pipes.append(here)
        gains = []
        for turn in range(WARM_UP + turns):
            alone = _seconds_of(pipes[:1])
            both = _seconds_of(pipes)
            if turn >= WARM_UP:
                gains.append(2 * alone / both)
        return median(gains)


def _seconds_of(pipes: list[Any], steps: int = 2) -> float:
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send(steps)
    for pipe in pipes:
        pipe.recv()
    return time.perf_counter() - began


def _steps_on_request(pipe: Any) -> None:
    torch.set_num_threads(1)
    ours, batch = Ours(FINE.spec(), FINE.backbone()), batches(FINE.backbone(), BATCH)
    while steps := pipe.recv():
        for _ in range(steps):
            ours.step(*batch)
        pipe.send(True)


def profile(case: str, steps: int = 5) -> str:
    """Where our step's time goes, by operation.

    case: a name of PROXIES, or "" for 64 experts with d 256.
    """
    torch.set_num_threads(1)
    spec, backbone, n, _ = PROXIES[case] if case else (FINE.spec(), FINE.backbone(), BATCH, 0.0)
    ours, batch = Ours(spec, backbone), batches(backbone, n)
    for _ in range(WARM_UP):
        ours.step(*batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as prof:
        for _ in range(steps):
            ours.step(*batch)
    return str(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument(
        "--profile",
        nargs="?",
        const="",
        choices=["", *PROXIES],
        metavar="NAME",
        help="only say where the time goes: with 64 experts, or in another of the steps",
    )
    command.add_argument(
        "--bfloat16", action="store_true", help="only hold steps in bfloat16 against float32's"
    )
    options = command.parse_args()
    if options.bfloat16:
        torch.set_num_threads(1)
        sys.exit(publish(narrow_rows(), options.json))
    if options.profile is not None:
        print(profile(options.profile))
        sys.exit(0)
    sys.exit(publish(rows(), options.json))
