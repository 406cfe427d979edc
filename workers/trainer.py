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
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError
from workers.corpus import Corpus
from workers.kernels.cross_entropy import linear_cross_entropy
from workers.layers.stats import record_stats
from workers.model import ProxyLM
from workers.optim import Optimizers, schedule

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


class Meter:
    """The FLOPs that training really spends, a step at a time.

    A step's price is fixed, but for designs whose training activity depends on the data (ReLU
    routing): those are charged what their layers last read.
    """

    def __init__(self, model: ProxyLM, request: EvalRequest) -> None:
        self.request, self.spent = request, 0.0
        self.adaptive = [m for m in model.modules() if hasattr(m, "training_activity")]
        self.price = step_flops(request.spec, request.backbone, request.recipe.batch_size)
        if self.price > request.train_flops * (1 + 1e-9):
            raise InputError(
                f"a trial's budget must pay for one step: {request.train_flops:.3g} FLOPs, one "
                f"step of {request.spec.label!r} costs {self.price:.3g}; raise budget.trial_flops"
            )

    def affords_a_step(self) -> bool:
        """Whether the budget pays for one step more at the last price."""
        return self.spent + self.price <= self.request.train_flops * (1 + 1e-9)

    def share(self) -> float:
        """The share of the budget that is spent in the middle of the coming step."""
        return min(1.0, (self.spent + self.price / 2) / self.request.train_flops)

    def charge(self) -> None:
        """Account for the step that was done."""
        if self.adaptive:
            activity = sum(m.training_activity for m in self.adaptive) / len(self.adaptive)
            request = self.request
            cost = model_cost(request.spec, request.backbone, activity)
            tokens = request.recipe.batch_size * request.backbone.seq_len
            self.price = cost.training_flops * tokens
        self.spent += self.price


def train(
    model: ProxyLM, request: EvalRequest, corpus: Corpus, report: Callable[[Progress], None]
) -> Trained:
    """Train in place with the request's recipe; data order is a function of (seed, step) alone."""
    recipe, seq_len = request.recipe, request.backbone.seq_len
    meter, curve = Meter(model, request), Curve(request, report)
    optimizers = Optimizers(model, recipe, request.spec.lr_multiplier)
    steps = 0
    model.train()
    while meter.affords_a_step():
        inputs, targets = corpus.batch(steps, request.seed, recipe.batch_size, seq_len)
        loss = train_step(model, inputs, targets, request.device)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {steps + 1}")
        optimizers.step(schedule(meter.share(), recipe))
        meter.charge()
        steps += 1
        curve.add(steps, loss, meter)
    tokens = steps * recipe.batch_size * seq_len
    return Trained(steps, tokens, meter.spent, optimizers.flops_a_step * steps)


class Curve:
    """Reports about PROGRESS_POINTS points of a trial, each with the mean loss since the last."""

    def __init__(self, request: EvalRequest, report: Callable[[Progress], None]) -> None:
        self.request, self.report = request, report
        self.began, self.losses = time.monotonic(), []
        self.next_flops = self.every = request.train_flops / PROGRESS_POINTS

    def add(self, step: int, loss: float, meter: Meter) -> None:
        """One step was done."""
        self.losses.append(loss)
        if meter.spent < self.next_flops and meter.affords_a_step():
            return
        left = (self.request.train_flops * (1 + 1e-9) - meter.spent) / meter.price
        self.report(
            Progress(
                trial=self.request.trial,
                step=step,
                steps=step + int(left),
                flops=meter.spent,
                loss=sum(self.losses) / len(self.losses),
                seconds=time.monotonic() - self.began,
            )
        )
        self.losses = []
        # Fixed marks: the last point then averages as many steps as the others.
        while self.next_flops <= meter.spent:
            self.next_flops += self.every


def train_step(model: ProxyLM, inputs, targets, device: str) -> float:
    """Forward and backward on one batch of token ids (N, L); returns the cross-entropy in nats."""
    inputs_NL = torch.from_numpy(inputs).to(device)
    targets_NL = torch.from_numpy(targets).to(device)
    out = model(inputs_NL)
    hidden_TD = out.hidden_NLD.flatten(0, 1)
    loss = linear_cross_entropy(hidden_TD, model.embed.weight, targets_NL.flatten())
    (loss if out.aux_loss is None else loss + out.aux_loss).backward()
    return loss.item()


@torch.no_grad()
def evaluate_quality(
    model: ProxyLM, corpus: Corpus, n_tokens: int, seq_len: int, device: str
) -> Quality:
    """Bits per byte on fixed validation windows, with its standard error over windows."""
    inputs, targets = corpus.validation_windows(n_tokens, seq_len)
    token_bytes_V = torch.from_numpy(corpus.byte_weights("validation")).to(device)
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
