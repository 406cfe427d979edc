"""Initial weights are drawn by the names of tensors: designs share what they share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.spec import FFNSpec
from workers.model import ProxyLM
from workers.training.initial import draw_by_name, named_seed
from workers.training.loop import build_proxy

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
EXPERTS = "layers.0.ffn.layers.0.experts"
ROUTER = "layers.1.ffn.layers.0.selection.router.weight_BD"


def drawn(spec: FFNSpec, seed: int = 0) -> dict[str, torch.Tensor]:
    model = ProxyLM(spec, BACKBONE)
    draw_by_name(model, seed)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_design_shares_all_tensors_that_the_dense_one_has_in_that_shape(preset):
    ours, dense = drawn(PRESETS[preset](BACKBONE)), drawn(PRESETS["dense"](BACKBONE))
    shared = {n for n, p in ours.items() if n in dense and dense[n].shape == p.shape}
    assert {"embed.weight", "layers.0.attention.qkv_3DD", "norm.weight"} <= shared
    for name in shared:
        assert torch.equal(ours[name], dense[name]), name


def test_what_is_drawn_before_a_tensor_changes_nothing_of_it():
    narrow = FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2), gated=True)
    wide = FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=1), gated=True, shared_width=32)
    ours, other = drawn(narrow), drawn(wide)
    assert ROUTER in ours
    for name in (f"{EXPERTS}.keys_BGD", f"{EXPERTS}.gates_BGD", ROUTER, "embed.weight"):
        assert ours[name].std() > 0
        assert torch.equal(ours[name], other[name]), name


def test_the_experts_that_two_designs_have_in_common_start_the_same():
    few = drawn(FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2)))
    many = drawn(FFNSpec(d_ff=256, expert_width=16, selection=TopK(k=2)))
    cut = drawn(FFNSpec(d_ff=64, expert_width=32, selection=TopK(k=1)))
    name = f"{EXPERTS}.keys_BGD"
    assert torch.equal(few[name], many[name][:4])
    assert torch.equal(few[name].flatten(), cut[name].flatten())


def test_tensors_and_seeds_differ():
    first, second = drawn(FFNSpec(d_ff=64)), drawn(FFNSpec(d_ff=64), seed=1)
    qkv = [first[f"layers.{i}.attention.qkv_3DD"] for i in (0, 1)]
    assert not torch.equal(*qkv)
    assert abs(float(torch.corrcoef(torch.stack([q.flatten() for q in qkv]))[0, 1])) < 0.1
    for name in ("embed.weight", f"{EXPERTS}.keys_BGD"):
        assert not torch.equal(first[name], second[name])
    assert len({named_seed(seed, name) for seed in range(50) for name in first}) == 50 * len(first)


def test_the_global_generator_neither_decides_nor_moves():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn_from(before)
    torch.manual_seed(2)
    again = drawn_from(torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)


def drawn_from(state: torch.Tensor) -> dict[str, torch.Tensor]:
    model = ProxyLM(FFNSpec(d_ff=64), BACKBONE)
    torch.set_rng_state(state)
    draw_by_name(model, 7)
    assert torch.equal(torch.get_rng_state(), state)
    return dict(model.named_parameters())


def test_scales_are_those_of_a_fresh_model():
    spec = PRESETS["pkm"](BACKBONE)
    drawn_by_name = drawn(spec)
    for name, p in ProxyLM(spec, BACKBONE).named_parameters():
        assert float(drawn_by_name[name].std()) == pytest.approx(
            float(p.detach().std()), rel=0.2
        ), name


def test_a_layer_that_draws_one_tensor_in_several_calls_gets_different_numbers():
    model = ProxyLM(FFNSpec(d_ff=64), BACKBONE)
    layer = model.layers[0].attention

    def reset() -> None:
        nn.init.normal_(layer.out_DD)
        with torch.no_grad():
            layer.out_DD.sub_(torch.randn(layer.out_DD.shape))

    layer.reset_parameters = reset
    draw_by_name(model, 0)
    assert float(layer.out_DD.std()) == pytest.approx(2**0.5, rel=0.1)


def test_a_training_begins_with_them(small_corpus):
    spec = PRESETS["switch"](BACKBONE)
    asked = EvalRequest(
        evaluation=1, spec=spec, backbone=BACKBONE, recipe=Recipe(), corpus_dir="", until_flops=1.0,
        seed=3,
    )  # fmt: skip
    built, wanted = build_proxy(asked, small_corpus), drawn(spec, seed=3)
    for name, p in built.named_parameters():
        assert torch.equal(p, wanted[name]), name
