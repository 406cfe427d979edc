"""A step as one launch: what is captured, when, and what happens where it cannot be."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.presets import PRESETS
from search_space.rates import Rates
from workers.model import ProxyLM
from workers.training.graph import WARM_UP, GraphedStep
from workers.training.loop import train_step
from workers.training.muon import PERIOD
from workers.training.optimizers import Optimizers

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=50, seq_len=8)


class Learner:
    """A training step that can be told of steps that it did not see."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = ProxyLM(PRESETS["olmoe"](BACKBONE), BACKBONE).train()
        self.optimizers = Optimizers(self.model, Recipe(), Rates(0.01, 0.01), 1.0)
        self.losses = []

    def __call__(self, inputs_NL, targets_NL, factor) -> None:
        self.losses.append(float(train_step(self.model, inputs_NL, targets_NL, "cpu")))
        self.optimizers.step(factor)


class FakeGraphs:
    """Captures as CUDA does: the host's part is done once, the device's when it is replayed."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.captured, self.replayed = learner, [], []

    def __call__(self, work):
        muon = self.learner.optimizers._muons()[0]
        turn = muon.turn
        self.captured.append(turn % PERIOD)
        muon.turn += 1  # what the host's part leaves

        def replay():
            self.replayed.append(turn % PERIOD)
            told, muon.turn = muon.turn, turn
            work()
            muon.turn = told

        return replay


def batches(n: int):
    random = np.random.default_rng(0)
    return [tuple(random.integers(0, 50, (2, 3, 8))) for _ in range(n)]


def graphed(learner: Learner, capture) -> GraphedStep:
    turns = learner.optimizers
    return GraphedStep(learner, turns.turn, turns.passed, turns.undo, capture)


def run(step, n: int) -> None:
    for place, (inputs, targets) in enumerate(batches(n)):
        step(inputs, targets, 1 / (1 + place), "cpu")


def plain(n: int) -> Learner:
    """The same steps, none of them captured."""
    learner = Learner()
    for place, (inputs, targets) in enumerate(batches(n)):
        factor = torch.tensor(1 / (1 + place))
        learner(torch.from_numpy(inputs), torch.from_numpy(targets), factor)
    return learner


def test_steps_are_the_same_and_each_turn_has_its_graph():
    learner, n = Learner(), WARM_UP + 5
    graphs = FakeGraphs(learner)
    run(graphed(learner, graphs), n)
    assert sorted(graphs.captured) == list(range(PERIOD))
    assert len(graphs.replayed) == 5
    want = plain(n)
    assert learner.losses == want.losses
    for ours, theirs in zip(learner.model.parameters(), want.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert learner.optimizers.turn() == want.optimizers.turn()


def test_a_step_that_cannot_be_captured_runs_as_it_is(caplog):
    learner, n = Learner(), WARM_UP + 4

    def refuse(work):
        learner.optimizers.passed()  # it was half-way
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    step = graphed(learner, refuse)
    with caplog.at_level(logging.WARNING):
        run(step, n)
    assert learner.losses == plain(n).losses
    assert [record.message for record in caplog.records] == [
        "steps run without a CUDA graph, slower: operation not permitted when stream is capturing"
    ]


def test_another_shape_is_captured_anew():
    learner = Learner()
    graphs = FakeGraphs(learner)
    step = graphed(learner, graphs)
    run(step, WARM_UP + 2)
    step(np.zeros((1, 8), np.int64), np.zeros((1, 8), np.int64), 1.0, "cpu")
    assert len(graphs.captured) == 3


def test_a_rate_in_a_tensor_is_the_number():
    by_number, by_tensor = Learner(), Learner()
    for place, (inputs, targets) in enumerate(batches(4)):
        both = torch.from_numpy(inputs), torch.from_numpy(targets)
        by_number(*both, 0.5**place)
        by_tensor(*both, torch.tensor(0.5**place))
    assert by_number.losses == pytest.approx(by_tensor.losses, rel=1e-5)
