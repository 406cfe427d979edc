"""A GPU's training step, traced on tensors without numbers: whatever asks for one raises."""

from __future__ import annotations

import dataclasses
import os
import random

import pytest
import torch
from depth import leading
from torch._subclasses.fake_tensor import DataDependentOutputException

from benchmarks.step_trace import Trace, on_a_gpu, training_of
from search_space.backbone import Backbone
from search_space.errors import SpecError
from search_space.methods import names
from search_space.presets import PRESETS
from search_space.space import SearchSpace, suggest
from search_space.spec import FFNSpec
from workers.layers.declared import declared
from workers.layers.experts import Experts
from workers.layers.router import Router
from workers.model import ProxyLM

pytest.importorskip("triton", reason="a GPU's forms need triton")
pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=100, seq_len=16)
SMALL = dataclasses.replace(BACKBONE, n_layers=1)
RANDOM = int(os.environ.get("NAS_TEST_EXAMPLES", "50"))


class Dice:
    """The part of a trial that a space uses; every pick is random."""

    def __init__(self, seed: int) -> None:
        self.random, self.params = random.Random(seed), {}

    def suggest_categorical(self, name, choices):
        return self.params.setdefault(name, self.random.choice(list(choices)))

    def suggest_float(self, name, low, high, *, log=False):
        return self.params.setdefault(name, self.random.uniform(low, high))


def random_specs() -> list[FFNSpec]:
    """Legal designs of the default space, all methods among them."""
    found, seed = [], 0
    while len(found) < RANDOM:
        seed += 1
        try:
            found.append(suggest(SearchSpace(), Dice(seed), SMALL))
        except SpecError:
            continue
    return found


SPECS = random_specs()


def traced(spec: FFNSpec, backbone: Backbone, precision: str = "float32", steps: int = 1) -> Trace:
    """Steps of a design, of which none reaches a point of the curve."""
    model, trace = ProxyLM(spec, backbone), Trace()
    model.set_token_counts(torch.arange(backbone.vocab_size))
    with on_a_gpu(trace) as fake:
        training = training_of(model, spec, 2, precision, fake)
        for _ in range(steps):
            training.step()
    return trace


def test_the_random_specs_have_every_method():
    assert {spec.method for spec in SPECS} == set(names())


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_a_preset_asks_for_no_number(name):
    launches = traced(PRESETS[name](BACKBONE), BACKBONE, steps=2).parts[""].launches
    assert {"rms_norm_backward_kernel", "cross_entropy_kernel", "_fused_adamw_"} <= set(launches)


@pytest.mark.parametrize("name", ["dense", "olmoe", "peer", "remoe"])
def test_nor_does_one_in_mixed_precision(name):
    assert traced(PRESETS[name](BACKBONE), BACKBONE, "bfloat16").parts[""].count


@pytest.mark.parametrize("spec", leading(SPECS, 10), ids=lambda spec: spec.label)
def test_a_step_of_a_random_design_asks_for_no_number(spec):
    assert traced(spec, SMALL).parts[""].count


@pytest.mark.parametrize("layer", [Router, Experts])
def test_one_number_that_a_layer_asks_for_is_seen(layer, monkeypatch):
    forward = layer.forward

    def asking(self, x_TD, *rest):
        x_TD.sum().item()
        return forward(self, x_TD, *rest)

    monkeypatch.setattr(layer, "forward", asking)
    with pytest.raises(DataDependentOutputException):
        traced(PRESETS["olmoe"](BACKBONE), BACKBONE)


@pytest.mark.parametrize("ask", ["tolist", "nonzero", "bool"])
def test_so_is_one_in_the_optimizer(ask, monkeypatch):
    def asking(params, limit):
        gradient = params[0].grad
        getattr(gradient.sum(), ask)() if ask != "bool" else bool(gradient.sum() > 0)

    monkeypatch.setattr("workers.training.optimizers.clip_gradients", asking)
    with pytest.raises(Exception, match="aten"):
        traced(PRESETS["dense"](BACKBONE), BACKBONE)


def test_a_point_of_the_curve_does_ask():
    spec = PRESETS["dense"](BACKBONE)
    model = ProxyLM(spec, BACKBONE)
    with on_a_gpu(Trace()) as fake:
        training = training_of(model, spec, 2, "float32", fake)
        training.curve.every = training.meter.price
        with pytest.raises(DataDependentOutputException):
            training.step()


def test_a_step_that_was_begun_and_not_done_leaves_nothing():
    spec = PRESETS["remoe"](BACKBONE)
    model = ProxyLM(spec, BACKBONE)
    with on_a_gpu(Trace()) as fake:
        training = training_of(model, spec, 2, "float32", fake)
        turn = training.optimizers.turn()
        training.batch_step(model, *training.corpus.batch(0, 0, 2, 16), "cpu", "float32")
        training.optimizers.passed()
        training.undo(turn)
    assert training.optimizers.turn() == turn
    assert not any(layer.counted for _, layer in declared(model))
    assert all(p.grad is None for p in model.parameters())
