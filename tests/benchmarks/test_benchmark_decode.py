"""The benchmark of decoding, over models of a moment."""

from __future__ import annotations

import pytest
import torch

from benchmarks import decode, turns
from search_space.backbone import Backbone
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Tiny models, few tokens and turns, and no change to this process's threads."""
    backbone = Backbone(d_model=32, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
    monkeypatch.setattr(decode, "BACKBONE", backbone)
    monkeypatch.setattr(decode, "PROMPT", 4)
    monkeypatch.setattr(decode, "NEW", 4)
    monkeypatch.setattr(decode, "take_turns", lambda calls: turns.take_turns(calls, 2))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


def test_rows_have_bars_where_experts_are_many(monkeypatch):
    few = FFNSpec(d_ff=64, activation="silu", gated=True)
    many = FFNSpec(d_ff=512, expert_width=8, activation="silu", gated=True, selection=TopK(k=2))
    monkeypatch.setattr(decode, "DECODED", {"few": few, "many": many})
    rows = decode.rows()
    assert all(float(row.value) > 0 for row in rows)
    names = {row.name: row.bar for row in rows}
    assert names["few, batch 1: decoding against Qwen3ForCausalLM"] == ""
    assert names["many, batch 8: decoding against Qwen3MoeForCausalLM"] == ">= 1"
    assert rows[-1].name.startswith("straight-through at 3") and rows[-1].bar == ">= 1.5"


def test_both_forms_decode_the_same():
    spec = FFNSpec(d_ff=64, expert_width=8, activation="silu", gated=True, selection=TopK(k=2))
    both = decode.exported(spec)
    form = decode.native_form(spec, decode.BACKBONE)
    native = decode.native_model(both.here.model.proxy, spec, decode.BACKBONE, form, decode.ENDS)
    ids = torch.randint(1, 300, (2, 4), generator=torch.Generator().manual_seed(0))
    found = [decode.decoding(model, ids)() for model in (both.model, native)]
    assert found[0].shape == (2, 8) and (found[0] == found[1]).all()
