"""One readable loop: train a proxy to a FLOP level.

N sequences, L tokens of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from search_space.contract import EvalRequest, Progress
from workers.corpus import Corpus
from workers.kernels.cross_entropy import linear_cross_entropy
from workers.model import ProxyLM
from workers.training.curve import Curve
from workers.training.meter import Meter
from workers.training.optimizers import Optimizers
from workers.training.schedule import schedule
from workers.training.state import TrainState, gather, restore


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Trained:
    """What training leaves: steps done, tokens read, model FLOPs spent, the optimizer's beside."""

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


class Training:
    """A proxy on its way to the request's FLOPs; data order is a function of (seed, step) alone.

    All that the next step depends on is in `state`, so that training which is taken up from one
    goes on as if it had not stopped.
    """

    def __init__(
        self,
        model: ProxyLM,
        request: EvalRequest,
        corpus: Corpus,
        report: Callable[[Progress], None],
    ) -> None:
        self.model, self.request, self.corpus = model, request, corpus
        self.meter, self.curve = Meter(model, request), Curve(request, report)
        self.optimizers = Optimizers(model, request.recipe, request.spec.lr_multiplier)
        self.steps = 0

    def step(self) -> None:
        """One batch forward, backward and applied. Raises Diverged when the loss is no number."""
        recipe, seq_len = self.request.recipe, self.request.backbone.seq_len
        inputs, targets = self.corpus.batch(
            self.steps, self.request.seed, recipe.batch_size, seq_len
        )
        loss = train_step(self.model, inputs, targets, self.request.device)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {self.steps + 1}")
        self.optimizers.step(schedule(self.meter.share(), recipe))
        self.meter.charge()
        self.steps += 1
        self.curve.add(self.steps, loss, self.meter)

    def run(self, after_step: Callable[[Training], None] = lambda training: None) -> Trained:
        """Train until the budget pays for no further step. after_step: called with the training."""
        self.model.train()
        while self.meter.affords_a_step():
            self.step()
            after_step(self)
        tokens = self.steps * self.request.recipe.batch_size * self.request.backbone.seq_len
        flops = self.optimizers.flops_a_step * self.steps
        return Trained(self.steps, tokens, self.meter.spent, flops)

    def state(self) -> TrainState:
        """All that goes on from here; its tensors are the live ones, not copies."""
        parts = {"meter": self.meter, "curve": self.curve}
        return gather(self.request, self.steps, self.model, self.optimizers, parts)

    def take_up(self, state: TrainState) -> None:
        """Go on from a state of the same request. Raises InputError for another's."""
        parts = {"meter": self.meter, "curve": self.curve}
        self.steps = restore(state, self.request, self.model, self.optimizers, parts)


def train_step(model: ProxyLM, inputs, targets, device: str) -> float:
    """Forward and backward on one batch of token ids (N, L); returns the cross-entropy in nats."""
    inputs_NL = torch.from_numpy(inputs).to(device)
    targets_NL = torch.from_numpy(targets).to(device)
    out = model(inputs_NL)
    hidden_TD = out.hidden_NLD.flatten(0, 1)
    loss = linear_cross_entropy(hidden_TD, model.embed.weight, targets_NL.flatten())
    (loss if out.aux_loss is None else loss + out.aux_loss).backward()
    return loss.item()
