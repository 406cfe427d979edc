"""One readable loop: train a proxy to a FLOP level, then measure it.

N sequences, L tokens of a sequence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search_space.contract import EvalRequest, Progress
from search_space.cost import step_flops
from search_space.errors import InputError
from workers.corpus import Corpus
from workers.layers.stats import record_stats
from workers.model import ProxyLM
from workers.optim import Optimizers

PROGRESS_POINTS = 40  # points of a trial's curve, besides the last
EVAL_BATCH = 16  # sequences of one evaluation batch


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Quality:
    """bits_per_byte with its standard error, and loss in nats a token."""

    bits_per_byte: float
    standard_error: float
    loss: float


@dataclass(frozen=True)
class Trained:
    """What `train` leaves: steps done, tokens read, model FLOPs spent, the optimizer's beside."""

    steps: int
    tokens: int
    flops: float
    optimizer_flops: float


def build_proxy(request: EvalRequest, corpus: Corpus) -> ProxyLM:
    """The request's proxy with its seed's initial weights, on its device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        model = ProxyLM(request.spec, request.backbone)
    model.set_token_counts(torch.from_numpy(corpus.token_counts))
    return model.to(request.device)


def plan_steps(request: EvalRequest) -> int:
    """Whole steps that the request's FLOPs pay for; InputError when not one."""
    one = step_flops(request.spec, request.backbone, request.recipe.batch_size)
    steps = int(request.train_flops / one * (1 + 1e-9))
    if steps < 1:
        raise InputError(
            f"a trial's budget must pay for one step: {request.train_flops:.3g} FLOPs, one step of "
            f"{request.spec.label!r} costs {one:.3g}; raise budget.trial_flops"
        )
    return steps


def train(
    model: ProxyLM, request: EvalRequest, corpus: Corpus, report: Callable[[Progress], None]
) -> Trained:
    """Train in place with the request's recipe; data order is a function of (seed, step) alone."""
    steps, recipe, backbone = plan_steps(request), request.recipe, request.backbone
    one = step_flops(request.spec, backbone, recipe.batch_size)
    optimizers = Optimizers(model, recipe, steps, request.spec.lr_multiplier)
    every, since, total = max(1, steps // PROGRESS_POINTS), 0, 0.0
    began = time.monotonic()
    model.train()
    for step in range(steps):
        inputs, targets = corpus.batch(step, request.seed, recipe.batch_size, backbone.seq_len)
        loss = train_step(model, inputs, targets, request.device)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step + 1} of {steps}")
        optimizers.step(step)
        total, since = total + loss, since + 1
        if since == every or step + 1 == steps:
            report(
                Progress(
                    trial=request.trial,
                    step=step + 1,
                    steps=steps,
                    flops=one * (step + 1),
                    loss=total / since,
                    seconds=time.monotonic() - began,
                )
            )
            total, since = 0.0, 0
    tokens = steps * recipe.batch_size * backbone.seq_len
    return Trained(steps, tokens, one * steps, optimizers.flops_a_step * steps)


def train_step(model: ProxyLM, inputs, targets, device: str) -> float:
    """Forward and backward on one batch of token ids (N, L); returns the cross-entropy in nats."""
    inputs_NL = torch.from_numpy(inputs).to(device)
    targets_NL = torch.from_numpy(targets).to(device)
    out = model(inputs_NL)
    loss = F.cross_entropy(model.logits(out.hidden_NLD).flatten(0, 1), targets_NL.flatten())
    (loss if out.aux_loss is None else loss + out.aux_loss).backward()
    return loss.item()


@torch.no_grad()
def evaluate_quality(
    model: ProxyLM, corpus: Corpus, n_tokens: int, seq_len: int, device: str
) -> Quality:
    """Bits per byte on fixed validation windows, with its standard error over windows."""
    inputs, targets = corpus.validation_windows(n_tokens, seq_len)
    # The scale is 1 unless the tokenizer that was given loses text.
    scale = corpus.meta["byte_scale"]["validation"]
    token_bytes_V = torch.from_numpy(corpus.token_bytes).to(device, torch.float64) * scale
    model.eval()
    nats, sizes = [], []
    for start in range(0, len(inputs), EVAL_BATCH):
        inputs_NL = torch.from_numpy(inputs[start : start + EVAL_BATCH]).to(device)
        targets_NL = torch.from_numpy(targets[start : start + EVAL_BATCH]).to(device)
        logits = model.logits(model(inputs_NL).hidden_NLD)
        losses_NL = F.cross_entropy(logits.transpose(1, 2), targets_NL, reduction="none")
        nats.append(losses_NL.double().sum(1))
        sizes.append(token_bytes_V[targets_NL].sum(1))
    return bits_per_byte(torch.cat(nats).cpu(), torch.cat(sizes).cpu(), targets.size)


def bits_per_byte(nats_N: Tensor, bytes_N: Tensor, n_tokens: int) -> Quality:
    """The ratio of sums over windows, and the standard error of that ratio (linearised)."""
    bits_N = nats_N / math.log(2)
    ratio = float(bits_N.sum() / bytes_N.sum())
    n = len(bits_N)
    residual = float((bits_N - ratio * bytes_N).square().sum())
    error = math.sqrt(residual * n / max(1, n - 1)) / float(bytes_N.sum())
    return Quality(ratio, error, float(nats_N.sum()) / n_tokens)


@torch.no_grad()
def measure_routing(
    model: ProxyLM, corpus: Corpus, seq_len: int, device: str
) -> dict[str, dict[str, object]]:
    """Routing statistics by FFN sub-layer on one batch of validation windows."""
    inputs, _ = corpus.validation_windows(EVAL_BATCH * seq_len, seq_len)
    model.eval()
    with record_stats(model) as recorded:
        model(torch.from_numpy(inputs).to(device))
    return {name: stats.summary() for name, stats in recorded.items()}
