"""An export of a dense design here is a base like any other, and what is cut of it is a proxy."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from nas.base_model import read_base
from nas.models.custom import new_model, write_model
from nas.models.forms import as_transformers, save
from search_space.backbone import Backbone
from search_space.base import Base
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import model_cost, step_flops
from search_space.cuts import CUTS, cut_into
from search_space.errors import InputError, SpecError
from search_space.methods.dense import Dense
from search_space.methods.topk import TopK
from search_space.native import NativeForm, native_form
from search_space.space import SearchSpace, suggest
from search_space.space.walk import Draw
from search_space.spec import FFNSpec
from workers.evaluate import evaluate
from workers.model import ProxyLM
from workers.pretrained.load import build_cut

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=64)
IDS_NL = torch.arange(64).view(2, 32) * 7 % 300
DENSE = {
    "gelu": FFNSpec(d_ff=64),
    "relu": FFNSpec(d_ff=64, activation="relu"),
    "swiglu": FFNSpec(d_ff=64, gated=True, activation="silu"),
    "shared": FFNSpec(d_ff=48, expert_width=16, shared_width=16),
}
ENDS = {"eos_token_id": 0, "pad_token_id": 0}


def written(folder, spec, backbone=BACKBONE):
    """An export of random weights, and its logits."""
    torch.manual_seed(0)
    proxy = ProxyLM(spec, backbone).eval()
    with torch.no_grad():
        for name, p in proxy.named_parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1 and "norm" in name), std=0.2)
        logits = proxy.logits(proxy(IDS_NL).hidden_NLD)
    folder.mkdir(exist_ok=True)
    write_model(folder, new_model(spec.to_dict(), backbone.to_dict(), ENDS, proxy))
    return logits


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """own(name): the backbone that such an export is as a base, and its logits."""
    root, done = tmp_path_factory.mktemp("own"), {}

    def base(name):
        if name not in done:
            logits = written(root / name, DENSE[name])
            done[name] = read_base(str(root / name), 32), logits
        return done[name]

    return base


def logits(model):
    with torch.no_grad():
        return model.eval().logits(model(IDS_NL).hidden_NLD)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        *((name, "contiguous") for name in DENSE),
        *(("relu", cut) for cut in ("clustered", "magnitude", "activation")),
        ("swiglu", "magnitude"),
    ],
)
def test_with_every_unit_read_it_is_the_base(own, small_corpus, name, cut):
    backbone, want = own(name)
    spec = cut_into(backbone, 8, Dense(), cut)
    model = build_cut(spec, backbone, small_corpus, 0)
    torch.testing.assert_close(logits(model), want, rtol=1e-4, atol=1e-5)
    original = build_cut(CUTS["original"](backbone), backbone, small_corpus, 0)
    torch.testing.assert_close(logits(original), want, rtol=1e-4, atol=5e-6)


def test_experts_are_slices_of_the_bases_units_and_gates_are_drawn(own, small_corpus):
    backbone, _ = own("gelu")
    spec = CUTS["llama_moe"](backbone)
    first, other = (build_cut(spec, backbone, small_corpus, seed) for seed in (0, 1))
    layer, twin = (m.layers[0].ffn.layers[0] for m in (first, other))
    assert torch.equal(layer.experts.keys_BGD, twin.experts.keys_BGD)
    assert not torch.equal(layer.selection.router.weight_BD, twin.selection.router.weight_BD)
    base = build_cut(CUTS["original"](backbone), backbone, small_corpus, 0)
    whole = base.layers[0].ffn.layers[0]
    assert torch.equal(layer.experts.keys_BGD.flatten(0, 1), whole.experts.keys_BGD[0])
    factor = layer.experts.values_BGD.flatten(0, 1) / whole.experts.values_BGD[0]
    assert factor.std() < 1e-5 and factor.mean() > 1.2  # weights of a softmax sum to 1


def test_layers_without_the_design_keep_the_bases_ffn(own, small_corpus):
    backbone, _ = own("swiglu")
    spec = dataclasses.replace(CUTS["llama_moe"](backbone), placement="alternate")
    model = build_cut(spec, backbone, small_corpus, 0)
    assert model.layers[0].ffn.layers[0].experts.keys_BGD.shape == (1, 64, 32)
    assert sum(p.numel() for p in model.parameters()) == model_cost(spec, backbone).total_params


@pytest.mark.parametrize("name", DENSE)
def test_a_space_of_cuts_finds_designs_of_it(own, name):
    backbone, _ = own(name)
    space = SearchSpace(match="units", methods=("topk", "straight_through", "relu_routing"))
    found = 0
    for seed in range(40):
        try:
            spec = suggest(space, Draw(seed), backbone)
        except SpecError:
            continue
        found += 1
        assert (spec.activation, spec.gated) == (backbone.base.activation, backbone.base.gated)
    assert found > 5


@pytest.mark.parametrize("cut", ["dsmoe", "avgk", "pruned_magnitude"])
def test_a_trial_trains_and_its_model_is_exported_like_a_proxys(own, small_corpus, tmp_path, cut):
    backbone, _ = own("gelu")
    spec = CUTS[cut](backbone)
    request = EvalRequest(
        evaluation=0,
        spec=spec,
        backbone=backbone,
        recipe=Recipe(batch_size=2, precision="float32"),
        corpus_dir=str(small_corpus.dir),
        until_flops=step_flops(spec, backbone, 2) * 3,
        eval_tokens=256,
    )
    result = evaluate(request, lambda progress: None)
    assert result.status is Status.FINISHED, result.error
    model = build_cut(spec, backbone, small_corpus, 0)
    written = as_transformers(model, spec, backbone, None, ENDS)
    want = logits(model)
    save(tmp_path, written, spec, backbone, None)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["backbone"]["base"]["model"] == "gelu"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS_NL).logits, want, rtol=1e-4, atol=1e-5)


def test_a_swiglu_base_has_the_native_forms_of_proxies(own):
    backbone, _ = own("swiglu")
    form = native_form(cut_into(backbone, 4, TopK(k=2)), backbone)
    assert isinstance(form, NativeForm) and form.architecture == "Qwen3MoeForCausalLM"


def test_plain_data_of_older_bases_is_as_it_was(own):
    swiglu, gelu = own("swiglu")[0], own("gelu")[0]
    assert "gated" not in swiglu.base.to_dict() and gelu.to_dict()["base"]["gated"] is False
    for backbone in (swiglu, gelu):
        assert Backbone.from_dict(backbone.to_dict()) == backbone
    with pytest.raises(InputError, match="a llama has a gated FFN"):
        Base.from_dict(gelu.base.to_dict() | {"family": "llama"})


@pytest.mark.parametrize(
    ("spec", "seq_len", "words"),
    [
        (FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2)), 32, "one dense FFN in every"),
        (FFNSpec(d_ff=64, depth=2), 32, "one dense FFN in every layer"),
        (FFNSpec(d_ff=64, placement="middle"), 32, "one dense FFN in every layer"),
        (FFNSpec(d_ff=64), 65, "more than the 64 positions"),
    ],
)
def test_what_is_no_dense_design_is_refused(tmp_path, spec, seq_len, words):
    written(tmp_path, spec)
    with pytest.raises(InputError, match=words):
        read_base(str(tmp_path), seq_len)


def test_a_base_that_has_changed_is_refused(small_corpus, tmp_path):
    written(tmp_path, DENSE["gelu"])
    backbone = read_base(str(tmp_path), 32)
    written(tmp_path, DENSE["relu"])
    with pytest.raises(InputError, match="has changed since the study began"):
        build_cut(CUTS["dsmoe"](backbone), backbone, small_corpus, 0)
