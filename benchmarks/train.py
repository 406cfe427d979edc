"""Whole training steps, ours beside transformers' of the same shape, on one CPU thread.

Forward, backward and optimizer, float32; ours with the trial's own step, theirs with AdamW. Both
take turns in one process, and a ratio is the median over the turns. Two trials at once are
processes of one thread each. `python -m benchmarks.train --json FILE`; `--profile` says where our
64-expert step's time goes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.products import products_alone
from benchmarks.report import Row, at_least, at_most, parser, publish
from benchmarks.turns import TURNS, WARM_UP, ratio, take_turns
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.methods.topk import TopK
from search_space.rates import AT_BASE
from search_space.spec import FFNSpec
from workers.model import ProxyLM
from workers.training.loop import train_step
from workers.training.optimizers import Optimizers

BATCH = 8  # sequences


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


class Ours:
    """A proxy with the trial's own training step."""

    def __init__(self, shape: Shape) -> None:
        torch.manual_seed(0)
        self.model = ProxyLM(shape.spec(), shape.backbone()).train()
        self.optimizers = Optimizers(self.model, Recipe(), AT_BASE, lr_multiplier=1.0)
        self.optimizer_seconds = 0.0

    def step(self, inputs_NL: np.ndarray, targets_NL: np.ndarray) -> None:
        """Forward, backward, update."""
        train_step(self.model, inputs_NL, targets_NL, "cpu")
        began = time.perf_counter()
        # A tiny rate: the weights, and with them the routing, stay much as they were.
        self.optimizers.step(1e-3)
        self.optimizer_seconds = time.perf_counter() - began


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


def batches(shape: Shape, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and targets, (N, L) each."""
    ids = np.random.default_rng(seed).integers(shape.vocab_size, size=(BATCH, shape.seq_len + 1))
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def rows() -> list[Row]:
    """A row a ratio, with its bar."""
    torch.set_num_threads(1)
    out = compare("dense 1024", DENSE, {"": 1.35}, "transformers Llama")
    out += compare("64 experts of 64, k 8", FINE, {"grouped_mm": 2, "eager": 4.5}, "OLMoE")
    out += compare("8 experts of 512, k 2", COARSE, {"grouped_mm": 1.5}, "OLMoE")
    out.append(at_least("two trials at once, tokens/s against one", two_trials(), 1.85, "x"))
    return out


def compare(name: str, shape: Shape, bars: dict[str, float], peer: str) -> list[Row]:
    """Tokens a second of ours, and over each form of the peer."""
    inputs, targets = batches(shape)
    ours = Ours(shape)
    shares: list[float] = []

    def step() -> None:
        began = time.perf_counter()
        ours.step(inputs, targets)
        shares.append(ours.optimizer_seconds / (time.perf_counter() - began))

    theirs = [Theirs(transformers_model(shape, form)) for form in bars]
    calls = [step, *(lambda t=t: t.step(inputs, targets) for t in theirs)]
    own, *others = take_turns(calls)
    # Without the optimizer: AdamW, theirs, has no products.
    alone, flops = products_alone(lambda: train_step(ours.model, inputs, targets, "cpu"))
    out = [
        Row(f"{name}: tokens", inputs.size / median(own), "1/s"),
        Row(f"{name}: the model's products alone", 1e-9 * flops / alone, "GFLOP/s"),
        Row(f"{name}: their share of the step", alone / median(own)),
    ]
    for (form, bar), seconds in zip(bars.items(), others, strict=True):
        label = f"{name}: tokens/s against {' '.join((peer, form)).strip()}"
        out.append(at_least(label, ratio(seconds, own), bar, "x"))
        out.append(Row(f"{label}, if ours were its products alone", median(seconds) / alone, "x"))
    share = median(shares[WARM_UP:])
    label = f"{name}: optimizer's share of the step"
    out.append(at_most(label, share, 0.2) if shape is FINE else Row(label, share))
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
    ours, batch = Ours(FINE), batches(FINE)
    while steps := pipe.recv():
        for _ in range(steps):
            ours.step(*batch)
        pipe.send(True)


def profile(shape: Shape = FINE, steps: int = 5) -> str:
    """Where our step's time goes, by operation."""
    torch.set_num_threads(1)
    ours, batch = Ours(shape), batches(shape)
    for _ in range(WARM_UP):
        ours.step(*batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as prof:
        for _ in range(steps):
            ours.step(*batch)
    return str(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--profile", action="store_true", help="only say where the time goes")
    options = command.parse_args()
    if options.profile:
        print(profile())
        sys.exit(0)
    sys.exit(publish(rows(), options.json))
