"""One readable loop: train a proxy along its trunk, and on a branch to a rung.

N sequences, L tokens of a sequence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_space.contract import EvalRequest, Precision, Progress
from workers.corpus import Corpus
from workers.kernels.api.cross_entropy import linear_cross_entropy
from workers.kernels.prepared import prepared
from workers.kernels.settings import settings
from workers.layers.declared import declared
from workers.model import LanguageModel, ProxyLM
from workers.precision import mixed, settled
from workers.training.carried import Carried
from workers.training.curve import Curve
from workers.training.graph import GraphedStep, sent
from workers.training.initial import draw_by_name
from workers.training.meter import Meter
from workers.training.once import once
from workers.training.optimizers import Optimizers
from workers.training.schedule import Schedule, Trunk, constant
from workers.training.state import TrainState, gather, restore
from workers.training.visit import Visit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What training leaves: the run's steps, tokens and model FLOPs up to the rung.

    trunk_flops: where the branch left the trunk.
    optimizer_flops: of this evaluation's own steps.
    """

    steps: int
    tokens: int
    flops: float
    trunk_flops: float
    optimizer_flops: float


def build_proxy(request: EvalRequest, corpus: Corpus) -> LanguageModel:
    """The request's proxy with its seed's initial weights, on its device: drawn by the seed, and of
    a model that is cut its own, but for the gates."""
    model: LanguageModel
    if request.backbone.base is not None:
        from workers.pretrained.load import build_cut  # which needs transformers

        model = build_cut(request.spec, request.backbone, corpus, request.seed)
    else:
        with torch.random.fork_rng(devices=[]):
            model = ProxyLM(request.spec, request.backbone)
        draw_by_name(model, request.seed)
    model.set_token_counts(torch.from_numpy(corpus.token_counts))
    model.begin_run(request.recipe.warmup)
    return model.to(request.device)


Hook = Callable[["Training"], None]
Tokens = NDArray[np.int64] | Tensor
# Model, inputs (N, L), targets (N, L), device, precision -> nats a token, a number or a tensor of
# one; gradients are left.
BatchStep = Callable[[LanguageModel, Any, Any, str, Precision], Tensor | float]


def _nothing(training: Training) -> None:
    pass


def batch_loss(
    model: LanguageModel,
    inputs: Tokens,
    targets: Tokens,
    device: str,
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of a batch in nats a token, and what is minimised: with the auxiliary loss.

    inputs: token ids, (N, L).
    targets: the next tokens, (N, L).
    """
    inputs_NL, targets_NL = (
        x if isinstance(x, Tensor) else sent(x, device) for x in (inputs, targets)
    )
    with mixed(precision, device), once(model):
        out = model(inputs_NL)
        hidden_TD = out.hidden_NLD.flatten(0, 1)
        loss = linear_cross_entropy(hidden_TD, prepared(model.head), targets_NL.flatten())
    return loss, loss if out.aux_loss is None else loss + out.aux_loss


def train_step(
    model: LanguageModel,
    inputs: Tokens,
    targets: Tokens,
    device: str,
    precision: Precision = "float32",
) -> Tensor:
    """Forward and backward on one batch, as `batch_loss` takes it; returns the cross-entropy, which
    a GPU has not been asked for."""
    loss, minimised = batch_loss(model, inputs, targets, device, precision)
    minimised.backward()
    return loss.detach()


class Training:
    """A proxy on its way to the request's rung; data order is a function of (seed, step) alone.

    All that the next step depends on is in `state`, so that training which is taken up from one
    goes on as if it had not stopped.

    trunk: the rates' factor before any decay; benchmarks alone give another than the constant one.
    batch_step: forward and backward of a batch, `train_step` without one; `parts` has another.
    """

    def __init__(
        self,
        model: LanguageModel,
        request: EvalRequest,
        corpus: Corpus,
        report: Callable[[Progress], None],
        trunk: Trunk = constant,
        batch_step: BatchStep | None = None,
    ) -> None:
        request = settled(request)
        self.batch_step = batch_step or train_step
        self.model, self.request, self.corpus = model, request, corpus
        self.schedule, self.meter = Schedule(request, trunk), Meter(model, request)
        self.visit = Visit(request)
        self.curve = Curve(request, self.visit, report)
        self.optimizers = Optimizers(
            model, request.recipe, request.rates, request.spec.lr_multiplier
        )
        self.steps = 0
        self.graphed = None if batch_step else self._graphed()  # parts differ in size

    def _graphed(self) -> GraphedStep | None:
        """The step as one launch, where its device has graphs."""
        if torch.device(self.request.device).type != "cuda":
            return None
        if not settings().graph:
            log.info("steps run without a CUDA graph: FFN_NAS_GRAPH turns it off")
            return None
        return GraphedStep(self.learn, self.optimizers.turn, self.optimizers.passed, self.undo)

    def undo(self, turn: int) -> None:
        """Forget the host's part of a step that was begun in this turn and not done."""
        for _, layer in declared(self.model):
            layer.counted.clear()
        self.optimizers.undo(turn)

    @property
    def on_branch(self) -> bool:
        """Whether the branch has left the trunk."""
        return self.schedule.left is not None

    def step(self) -> None:
        """One batch forward, backward and applied. Raises Diverged when the loss is no number: on a
        GPU, which is not waited for, at the next point of the curve."""
        recipe, seq_len = self.request.recipe, self.request.backbone.seq_len
        inputs, targets = self.corpus.batch(
            self.steps, self.request.seed, recipe.batch_size, seq_len
        )
        factor = self.schedule.factor(self.steps, self.meter)
        if self.graphed is None:
            self.learn(inputs, targets, self._on_device(factor))
        else:
            self.graphed(inputs, targets, factor, self.request.device)
        self.meter.charge()
        self.visit.add(self.meter.spent)
        self.steps += 1
        self.curve.add(self.steps, self.meter)

    def _on_device(self, factor: float) -> float | Tensor:
        """The factor as a graphed step has it, so that steps without a graph round as it does."""
        device = self.request.device
        if torch.device(device).type == "cpu":
            return factor
        return torch.full((), factor, dtype=torch.float32, device=device)

    def learn(self, inputs: Tokens, targets: Tokens, factor: float | Tensor) -> None:
        """The device's part of a step, which asks a GPU nothing.

        inputs, targets: (N, L).
        factor: of the rates.
        """
        request = self.request
        loss = self.batch_step(
            self.model, inputs, targets, request.device, request.recipe.precision
        )
        self.curve.losses.add(loss, self.steps + 1)
        self.optimizers.step(factor)
        self.meter.note()

    def run(self, after_step: Hook = _nothing, at_branch: Hook = _nothing) -> Trained:
        """Train the trunk until its level pays for no further step, then the branch to the rung.

        after_step: called after each step.
        at_branch: called on the trunk where the branch leaves it, unless training was taken up on
            the branch.
        """
        self.model.train()
        if not self.on_branch:
            self._train(after_step)
            at_branch(self)
            self.schedule.leave(self.meter)
            log.info(
                "the branch leaves the trunk at step %d, %.4g FLOPs: its rates decay up to %.4g",
                self.steps, self.schedule.left, self.schedule.level,
            )  # fmt: skip
        self._train(after_step)
        self.curve.end(self.steps, self.meter)
        return self._trained()

    def _train(self, after_step: Hook) -> None:
        while self.meter.affords_a_step(self.schedule.level):
            self.step()
            after_step(self)

    def _trained(self) -> Trained:
        tokens = self.steps * self.request.recipe.batch_size * self.request.backbone.seq_len
        left = self.schedule.left
        assert left is not None
        flops = self.optimizers.flops_a_step * self.visit.steps
        return Trained(self.steps, tokens, self.meter.spent, left, flops)

    def state(self) -> TrainState:
        """All that goes on from here; its tensors are the live ones, not copies."""
        # Another rung's branch has another rate: its states are no use to this one.
        rung = {"until_flops": self.request.until_flops} if self.on_branch else {}
        identity = self.request.identity() | rung
        return gather(identity, self.steps, self.model, self.optimizers, self.carriers())

    def take_up(self, state: TrainState) -> None:
        """Go on from a state of the same run, on its trunk or on this rung's branch. Raises
        InputError for another's."""
        self.steps = restore(state, self.request, self.model, self.optimizers, self.carriers())

    def carriers(self) -> dict[str, Carried]:
        """What carries numbers beside the model and the optimizers, by name."""
        return {
            "meter": self.meter,
            "schedule": self.schedule,
            "curve": self.curve,
            "visit": self.visit,
        }
