"""The speed benchmarks at toy sizes: both sides build, step and are compared; no bar is tested."""

from __future__ import annotations

import pytest
import torch

from benchmarks import layers, train
from benchmarks.train import Ours, Shape, Theirs, batches, compare, transformers_model
from workers.training.muon import PERIOD

TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 64, "seq_len": 8}
SHAPES = {"dense": Shape(**TINY, hidden=24), "routed": Shape(**TINY, hidden=8, experts=4, k=2)}


@pytest.mark.parametrize("kind", SHAPES)
def test_both_sides_have_the_same_matrices(kind):
    shape = SHAPES[kind]
    theirs = transformers_model(shape, "grouped_mm" if shape.experts else "")
    theirs_norms = sum(p.numel() for n, p in theirs.named_parameters() if "norm" in n)
    ours = Ours(shape.spec(), shape.backbone()).model
    ours_norms = sum(p.numel() for n, p in ours.named_parameters() if "norm" in n)
    assert sum(p.numel() for p in ours.parameters()) - ours_norms == (
        sum(p.numel() for p in theirs.parameters()) - theirs_norms
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_a_step_moves_both(kind):
    shape = SHAPES[kind]
    sides = [
        Ours(shape.spec(), shape.backbone()),
        Theirs(transformers_model(shape, "eager" if shape.experts else "")),
    ]
    for side in sides:
        before = [p.detach().clone() for p in side.model.parameters()]
        # What starts at zero gives the others a gradient once it has had its turn.
        for _ in range(2 * PERIOD):
            side.step(*batches(shape.backbone(), 2))
        after = side.model.parameters()
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_both_precisions_are_timed_where_the_cpu_has_them(monkeypatch):
    shape, seen = SHAPES["routed"], []
    monkeypatch.setattr(train, "NARROW", {"tiny": (shape.spec(), shape.backbone(), 2)})
    step = Ours.step

    def note(ours, *batch):
        seen.append(ours.precision)
        step(ours, *batch)

    monkeypatch.setattr(Ours, "step", note)
    monkeypatch.setattr(train, "why_not", lambda device: "")
    rows = train.narrow_rows()
    assert [row.name for row in rows] == [
        "tiny in bfloat16: a step",
        "tiny in bfloat16: against float32",
    ]
    assert seen[:2] == ["float32", "bfloat16"]
    monkeypatch.setattr(train, "why_not", lambda device: "it has none")
    assert [row.value for row in train.narrow_rows()] == ["it has none"]


@pytest.mark.parametrize(("gain", "bar"), [(2.2, 3.0), (1.1, 1e-9)])
def test_a_peers_bar_is_that_of_the_machine(monkeypatch, gain, bar):
    monkeypatch.setattr(train, "BATCH", 2)
    monkeypatch.setattr(train, "cubes", lambda: [lambda: None])
    monkeypatch.setattr(train, "best_rate", lambda seconds: (seconds[0], gain))
    rows = compare("tiny", SHAPES["routed"], 1e9, {"grouped_mm": (3.0, 1e-9)}, "OLMoE")
    assert [row.bar for row in rows if row.bar] == [">= 1e+09", f">= {bar:g}"]
    assert not next(row for row in rows if row.bar).holds


def test_a_share_is_the_models_flops_over_those_of_the_products(monkeypatch):
    def turns(calls):
        for _ in range(train.WARM_UP + 1):
            calls[0]()
        return [[4.0, 2.0, 4.0], [1.0, 2.0, 1.0]]

    monkeypatch.setattr(train, "cubes", lambda: [lambda: None])
    monkeypatch.setattr(train, "FLOPS", 50.0)
    monkeypatch.setattr(train, "take_turns", turns)
    shape = SHAPES["dense"]
    ours = Ours(shape.spec(), shape.backbone())
    rows, own, others, gain = train.measure("tiny", ours, batches(shape.backbone(), 2), 100.0, 0.4)
    by_name = {row.name: row.value for row in rows}
    assert by_name["tiny: share of R"] == pytest.approx(0.25 * 100 / 50)
    assert (own, others, gain) == ([4.0, 2.0, 4.0], [], 1.0)


def test_layers_are_compared(monkeypatch):
    monkeypatch.setattr(layers, "D_MODEL", 16)
    peer = layers.peer_rows(n_tokens=8, heads=1, k=2, root=4)
    routed = layers.routed_rows(n_tokens=8)
    gate = layers.straight_through_row(n_tokens=64, blocks=4, width=16)
    assert [row.bar for row in peer] == ["", ">= 6", "<= 0.125"]
    assert len(routed) == 1 + len(layers.ROUTED)
    assert gate.bar == ">= 2"
    assert all(row.value > 0 for row in [*peer, *routed, gate])
