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
    ours = Ours(shape).model
    ours_norms = sum(p.numel() for n, p in ours.named_parameters() if "norm" in n)
    assert sum(p.numel() for p in ours.parameters()) - ours_norms == (
        sum(p.numel() for p in theirs.parameters()) - theirs_norms
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_a_step_moves_both(kind):
    shape = SHAPES[kind]
    sides = [Ours(shape), Theirs(transformers_model(shape, "eager" if shape.experts else ""))]
    for side in sides:
        before = [p.detach().clone() for p in side.model.parameters()]
        # What starts at zero gives the others a gradient once it has had its turn.
        for _ in range(2 * PERIOD):
            side.step(*batches(shape))
        after = side.model.parameters()
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_comparison_has_a_row_for_each_ratio(monkeypatch):
    monkeypatch.setattr(train, "BATCH", 2)
    rows = compare("tiny", SHAPES["routed"], {"grouped_mm": 1e-9, "eager": 1e9}, "OLMoE")
    by_bar = {row.bar: row.holds for row in rows if row.bar}
    assert by_bar == {">= 1e-09": True, ">= 1e+09": False}


def test_layers_are_compared(monkeypatch):
    monkeypatch.setattr(layers, "D_MODEL", 16)
    peer = layers.peer_rows(n_tokens=8, heads=1, k=2, root=4)
    routed = layers.routed_rows(n_tokens=8)
    gate = layers.straight_through_row(n_tokens=64, blocks=4, width=16)
    assert [row.bar for row in peer] == ["", ">= 6", "<= 0.125"]
    assert len(routed) == 1 + len(layers.ROUTED)
    assert gate.bar == ">= 2"
    assert all(row.value > 0 for row in [*peer, *routed, gate])
