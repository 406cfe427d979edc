"""A cut model is its base where all is read, and trains and counts like a proxy."""

from __future__ import annotations

import dataclasses
import shutil
from typing import get_args

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from nas.base_model import read_base
from search_space.base import Family
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import model_cost, step_flops
from search_space.cuts import CUTS, cut_into, pruned
from search_space.design import Cut
from search_space.errors import InputError, SpecError
from search_space.methods.dense import Dense
from search_space.methods.hash import Hash
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.evaluate import evaluate
from workers.hf_cut import CLASSES
from workers.kernels.api.flops import custom_flops
from workers.pretrained.cutting import scale_to
from workers.pretrained.load import CALIBRATION_TOKENS, build_cut, load_base
from workers.pretrained.model import CutFFN
from workers.pretrained.plain import as_dense
from workers.training.optimizers import Kind, group_parameters

pytestmark = pytest.mark.slow

IDS_NL = torch.arange(64).view(2, 32) * 7 % 300


def whole(backbone, n_experts, cut="contiguous"):
    """All units, read with weight 1, in several experts."""
    spec = cut_into(backbone, n_experts, Dense(), cut)
    assert spec.n_experts == n_experts
    return spec


def logits(model):
    with torch.no_grad():
        return model.eval().logits(model(IDS_NL).hidden_NLD)


def exported(bases, small_corpus, family="llama", name="llama_moe", seed=0):
    """A cut model as transformers has it."""
    backbone = read_base(str(bases[family]), 32)
    spec = CUTS[name](backbone)
    model = build_cut(spec, backbone, small_corpus, seed)
    config_class, model_class = CLASSES[family]
    data = model.lm.config.to_dict()
    for key in ("model_type", "architectures"):
        data.pop(key)
    config = config_class(**data, ffn={"spec": spec.to_dict(), "backbone": backbone.to_dict()})
    out = model_class(config).eval()
    out.load_state_dict(model.lm.state_dict())
    return out


@pytest.mark.parametrize("family", get_args(Family))
def test_with_every_expert_open_it_equals_the_dense_model(bases, small_corpus, family):
    backbone = read_base(str(bases[family]), 32)
    with torch.no_grad():
        want = AutoModelForCausalLM.from_pretrained(bases[family])(IDS_NL).logits
    for cut in get_args(Cut):
        model = build_cut(whole(backbone, 4, cut), backbone, small_corpus, 0)
        torch.testing.assert_close(logits(model), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "name"),
    [*((family, "llama_moe") for family in get_args(Family)), *(("llama", name) for name in CUTS)],
)
def test_its_costs_are_those_of_the_formulas(bases, small_corpus, family, name):
    backbone = read_base(str(bases[family]), 32)
    spec = CUTS[name](backbone)
    model = build_cut(spec, backbone, small_corpus, 0).train()
    cost = model_cost(spec, backbone)
    assert sum(p.numel() for p in model.parameters()) == cost.total_params
    if name == "remoe":
        return  # what it reads in training depends on the data
    model.eval()
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=custom_flops()) as counted,
        torch.no_grad(),
    ):
        model.logits(model(IDS_NL).hidden_NLD)
    # torch counts the whole square of attention, the formulas its causal half.
    square = 4.0 * backbone.n_heads * backbone.head_dim * backbone.seq_len / 2 * backbone.n_layers
    active = cost.active_flops
    if name == "dsmoe":
        open_share = sum(_activity(model)) / backbone.n_layers
        active = model_cost(spec, backbone, open_share).active_flops
    assert counted.get_total_flops() / IDS_NL.numel() - square == pytest.approx(active, rel=0.02)


def _activity(model):
    from workers.layers.recording import record_stats

    with record_stats(model) as recorded, torch.no_grad():
        model(IDS_NL)
    return [stats.summary()["active"] for stats in recorded.values()]


def test_matrices_take_muon_and_each_parameter_has_one_optimizer(bases, small_corpus):
    backbone = read_base(str(bases["qwen2"]), 32)  # tied, with biases
    model = build_cut(CUTS["llama_moe"](backbone), backbone, small_corpus, 0)
    groups = group_parameters(model)
    listed = [p for parameters in groups.values() for p in parameters]
    assert len({id(p) for p in listed}) == len(listed) == len(list(model.parameters()))
    matrices = {id(p) for (kind, _), ps in groups.items() if kind is Kind.MATRIX for p in ps}
    names = {name for name, p in model.named_parameters() if id(p) in matrices}
    kinds = {name.split("layers.")[1].split(".", 1)[1] for name in names}
    assert kinds == {
        *(f"self_attn.{x}_proj.weight" for x in "qkvo"),
        *(f"mlp.experts.{x}_BGD" for x in ("keys", "gates", "values")),
    }
    searched = {id(p) for (_, own), ps in groups.items() if own for p in ps}
    assert searched == {
        id(p) for m in model.modules() if isinstance(m, CutFFN) for p in m.parameters()
    }


def test_a_pruned_model_is_its_family_with_fewer_units(bases, small_corpus):
    backbone = read_base(str(bases["qwen3"]), 32)
    model = build_cut(pruned(backbone, 24, "activation"), backbone, small_corpus, 0)
    dense = as_dense(model)
    assert dense.config.intermediate_size == 24
    with torch.no_grad():
        torch.testing.assert_close(dense(IDS_NL).logits, logits(model), rtol=1e-5, atol=1e-5)


def test_pruning_by_contribution_keeps_more_than_by_chance(bases, small_corpus):
    """On the text that it was calibrated on, half of the units say more than another half."""
    backbone = read_base(str(bases["llama"]), 32)
    with torch.no_grad():
        want = AutoModelForCausalLM.from_pretrained(bases["llama"])(IDS_NL).logits
    errors = {}
    for cut in ("contiguous", "magnitude", "activation"):
        model = build_cut(pruned(backbone, 32, cut), backbone, small_corpus, 0)
        errors[cut] = float((logits(model) - want).square().mean())
    assert errors["activation"] < 0.8 * errors["contiguous"]
    assert errors["magnitude"] < errors["contiguous"]


@pytest.mark.parametrize("name", ["dsmoe", "llama_moe", "avgk"])
def test_its_outputs_are_as_large_as_the_dense_ffns(bases, small_corpus, name):
    """In the first layer, which reads what the dense one does, no other factor fits better."""
    backbone = read_base(str(bases["llama"]), 32)
    base, seen = load_base(backbone.base), []
    base.model.layers[0].mlp.register_forward_hook(lambda m, x, y: seen.extend((x[0], y)))
    ids, _ = small_corpus.batch(0, 0, CALIBRATION_TOKENS // 32, 32)
    with torch.no_grad():
        base(torch.from_numpy(ids))
        x_NLD, wanted_NLD = seen
        model = build_cut(CUTS[name](backbone), backbone, small_corpus, 0).eval()
        y_NLD = model.lm.model.layers[0].mlp(x_NLD)
    assert scale_to(y_NLD, wanted_NLD) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["dsmoe", "llama_moe", "remoe", "pruned_activation"])
def test_promoted_or_straight_it_is_one_run(bases, small_corpus, tmp_path, name):
    backbone = read_base(str(bases["llama"]), 32)
    spec = CUTS[name](backbone)
    request = EvalRequest(
        evaluation=1,
        spec=spec,
        backbone=backbone,
        recipe=Recipe(batch_size=2, warmup=2, precision="float32"),
        corpus_dir=str(small_corpus.dir),
        until_flops=12.5 * step_flops(spec, backbone, 2),
        eval_tokens=256,
    )
    straight = evaluate(request, lambda progress: None)
    lower = dataclasses.replace(
        request,
        until_flops=request.until_flops / 3,
        run_flops=request.until_flops,
        state_dir=str(tmp_path),
        keep_trunk=True,
    )
    first = evaluate(lower, lambda progress: None)
    upper = dataclasses.replace(
        request, state_dir=str(tmp_path), start_flops=first.trunk_flops, rung=1
    )
    promoted = evaluate(upper, lambda progress: None)
    assert first.status is promoted.status is Status.FINISHED, first.error or promoted.error
    assert promoted.windows == straight.windows
    assert promoted.steps == straight.steps
    # Whatever it was cut to, a few steps make it better than it was at the first rung.
    assert promoted.bits_per_byte < first.bits_per_byte


@pytest.mark.parametrize("family", get_args(Family))
def test_as_a_transformers_model_it_computes_the_same(bases, small_corpus, tmp_path, family):
    backbone = read_base(str(bases[family]), 32)
    model = build_cut(CUTS["dsmoe"](backbone), backbone, small_corpus, 3)
    whole = exported(bases, small_corpus, family, "dsmoe", seed=3)
    whole.save_pretrained(tmp_path)
    again = type(whole).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(IDS_NL).logits, logits(model), rtol=1e-6, atol=1e-6)
    plain = float(again(IDS_NL, labels=IDS_NL).loss.detach())
    again.train(), model.train()
    aux = float(model(IDS_NL).aux_loss.detach())
    for options in ({}, {"return_dict": False}):
        loss = float(again(IDS_NL, labels=IDS_NL, **options)[0].detach())
        assert loss == pytest.approx(plain + aux, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selection": Hash(k=1)}, "method is one of"),
        ({"activation": "gelu"}, "gated with silu"),
        ({"gated": False}, "gated with silu"),
        ({"depth": 2, "expert_width": 8}, "depth is 1"),
        ({"shared_width": 8}, "shared_width is 0"),
        ({"d_ff": 128}, "at most its 64 hidden units"),
    ],
)
def test_a_design_that_is_no_cut_is_refused(bases, small_corpus, changes, words):
    backbone = read_base(str(bases["llama"]), 32)
    fields = {"d_ff": 64, "expert_width": 16, "gated": True, "activation": "silu"}
    spec = FFNSpec(**(fields | {"selection": TopK(k=2)} | changes))
    with pytest.raises(SpecError, match=words):
        build_cut(spec, backbone, small_corpus, 0)


def test_gates_follow_the_seed_and_the_rest_is_the_bases(bases, small_corpus):
    backbone = read_base(str(bases["llama"]), 32)
    spec = cut_into(backbone, 4, TopK(k=2))
    models = [build_cut(spec, backbone, small_corpus, seed) for seed in (0, 0, 1)]
    state = [dict(model.named_parameters()) for model in models]
    differ = {name for name, p in state[0].items() if not torch.equal(p, state[2][name])}
    assert all(torch.equal(p, state[1][name]) for name, p in state[0].items())
    # The scale of the values follows from what the gates choose.
    assert {name.split(".mlp.")[1] for name in differ} >= {"selection.router.weight_BD"}
    assert all(".mlp." in name for name in differ)


@pytest.mark.parametrize("name", ["llama_moe", "dsmoe", "remoe", "avgk"])
@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_no_loss_and_no_answer(bases, small_corpus, name, left):
    model = exported(bases, small_corpus, name=name).train()
    ids, pad = IDS_NL[:, :10], torch.zeros(2, 5, dtype=torch.long)
    labels, no_label = ids.clone(), torch.full((2, 5), -100)
    labels[:, 0] = -100  # on the left, padding would predict it
    one = torch.ones(2, 10, dtype=torch.long)
    sides = (lambda a, b: torch.cat([b, a], 1)) if left else (lambda a, b: torch.cat([a, b], 1))
    want = model(ids, labels=labels)
    got = model(sides(ids, pad), attention_mask=sides(one, pad), labels=sides(labels, no_label))
    torch.testing.assert_close(got.loss, want.loss, rtol=1e-5, atol=1e-6)
    real = slice(5, None) if left else slice(None, 10)
    torch.testing.assert_close(got.logits[:, real], want.logits, rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_weigh_the_auxiliary_loss_as_the_whole(bases, small_corpus):
    model = exported(bases, small_corpus, name="dsmoe").train()
    row = IDS_NL[:1]
    whole = model(row.repeat(4, 1), labels=row.repeat(4, 1)).loss
    items = torch.tensor(4 * (row.shape[1] - 1))
    parts = [model(row, labels=row, num_items_in_batch=items).loss for _ in range(4)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama_moe", "dsmoe", "remoe"])
def test_it_checkpoints_and_runs_in_half_precision(bases, small_corpus, name):
    model = exported(bases, small_corpus, name=name).train()
    losses, gradients = [], []
    for _ in range(2):
        model.zero_grad()
        loss = model(IDS_NL, labels=IDS_NL).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.gradient_checkpointing_enable()
    torch.testing.assert_close(losses[0], losses[1])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    half = exported(bases, small_corpus, name=name).to(torch.bfloat16)
    with torch.no_grad():
        full = exported(bases, small_corpus, name=name)(IDS_NL).logits
        assert half(IDS_NL).logits.dtype == torch.bfloat16
        assert (half(IDS_NL).logits.float() - full).abs().mean() < 0.1 * full.abs().mean()


@pytest.mark.parametrize("name", ["llama_moe", "dsmoe", "avgk"])
def test_it_generates_alike_with_a_cache_and_without(bases, small_corpus, name):
    model = exported(bases, small_corpus, name=name)
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones(2, 8).long()}
    cached = model.generate(IDS_NL[:, :8], use_cache=True, **options)
    assert torch.equal(cached, model.generate(IDS_NL[:, :8], use_cache=False, **options))


def test_a_base_that_has_changed_is_refused(bases, small_corpus, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(bases["llama"], folder)
    backbone = read_base(str(folder), 32)
    build_cut(CUTS["avgk"](backbone), backbone, small_corpus, 0)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=r"^base_model .* has changed since the study began"):
        build_cut(CUTS["avgk"](backbone), backbone, small_corpus, 0)
