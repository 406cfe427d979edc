"""A routed cut as the class of transformers with experts around the same attention, and back."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from nas.base_model import read_base
from nas.models.cut import cut_model
from nas.models.native import save_native
from search_space.cuts import CUTS, cut_into
from search_space.errors import InputError
from search_space.methods.avgk import AvgK
from search_space.methods.topk import TopK
from search_space.native import NativeForm, NoForm, native_form
from workers.pretrained.load import build_cut
from workers.pretrained.plain import as_routed, from_plain

pytestmark = pytest.mark.slow

IDS_NL = torch.arange(64).view(2, 32) * 7 % 300
MIXTRAL, QWEN2, QWEN3 = "MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"
SUMS_TO_1 = TopK(k=2, normalize=True, balance_weight=0.02)
NATIVE = {
    "llama": ("llama", SUMS_TO_1, "contiguous", MIXTRAL),
    "llama, clustered": ("llama", SUMS_TO_1, "clustered", MIXTRAL),
    "llama, Avg-K": ("llama", AvgK(k=1), "contiguous", MIXTRAL),
    "mistral": ("mistral", SUMS_TO_1, "contiguous", MIXTRAL),
    "qwen2, tied": ("qwen2", SUMS_TO_1, "contiguous", QWEN2),
    "qwen2, as they are": ("qwen2", TopK(k=2), "contiguous", QWEN2),
    "qwen3": ("qwen3", SUMS_TO_1, "contiguous", QWEN3),
    "qwen3, as they are": ("qwen3", TopK(k=2), "contiguous", QWEN3),
}


def logits(model):
    with torch.no_grad():
        return model.eval().logits(model(IDS_NL).hidden_NLD)


@pytest.fixture(scope="module")
def built(bases, small_corpus):
    """built(name): the cut model, its design, backbone and form."""
    done = {}

    def build(name):
        if name not in done:
            family, selection, cut, _ = NATIVE[name]
            backbone = read_base(str(bases[family]), 32)
            spec = cut_into(backbone, 4, selection, cut)
            done[name] = build_cut(spec, backbone, small_corpus, 0), spec, backbone
        return *done[name], native_form(done[name][1], done[name][2])

    return build


@pytest.mark.parametrize("name", NATIVE)
def test_it_loads_as_its_class_without_code_and_computes_the_same(built, tmp_path, name):
    model, spec, _, form = built(name)
    save_native(cut_model(model, spec, form), tmp_path)
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(plain).__name__ == form.architecture == NATIVE[name][3]
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        found = plain(IDS_NL).logits
    assert found.abs().max() > 1
    torch.testing.assert_close(found, logits(model), rtol=1e-4, atol=2e-5)
    one = IDS_NL[:1, :8]
    options = {"do_sample": False, "max_new_tokens": 8, "attention_mask": torch.ones_like(one)}
    cached, whole = (plain.generate(one, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, whole)


@pytest.mark.parametrize("name", NATIVE)
def test_it_comes_back_to_the_bit(built, name):
    model, spec, backbone, form = built(name)
    again = from_plain(cut_model(model, spec, form), spec, backbone, form)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    for tensor, values in ours.items():
        assert torch.equal(values, theirs[tensor]), tensor


def test_its_configuration_says_how_it_routes(built):
    plain = cut_model(*built("llama")[:2], built("llama")[3])
    config = plain.config
    assert (config.num_local_experts, config.num_experts_per_tok) == (4, 2)
    assert (config.intermediate_size, config.router_aux_loss_coef) == (16, 0.01)
    assert cut_model(*built("qwen3, as they are")[:2], built("qwen3")[3]).config.norm_topk_prob
    shared = built("qwen2, tied")[3]
    assert shared.zero_units == 4 and "4 hidden units of zeros" in shared.words


NONE = {
    "no top-k": ("llama", CUTS["dsmoe"], "no class selects as straight_through does"),
    "weights as they are": (
        "llama",
        lambda b: cut_into(b, 4, TopK(k=2)),
        "the class of a llama with experts divides their weights by the sum",
    ),
    "sigmoid": (
        "qwen3",
        lambda b: cut_into(b, 4, TopK(k=2, gate="sigmoid")),
        "the class of a qwen3 with experts weighs them by a softmax",
    ),
    "a bias": (
        "mistral",
        lambda b: cut_into(b, 4, TopK(k=2, normalize=True, bias_rate=0.1)),
        "softmax weights and a bias of the choice",
    ),
    "other layers": (
        "llama",
        lambda b: dataclasses.replace(cut_into(b, 4, SUMS_TO_1), placement="alternate"),
        "its other layers keep the base's FFN",
    ),
    "narrow experts": ("llama", lambda b: cut_into(b, 32, SUMS_TO_1), "multiples of 4"),
}


@pytest.mark.parametrize("name", NONE)
def test_a_cut_that_no_class_computes_says_why(bases, name):
    family, design, why = NONE[name]
    backbone = read_base(str(bases[family]), 32)
    form = native_form(design(backbone), backbone)
    assert isinstance(form, NoForm) and why in form.why
    assert isinstance(native_form(form.nearest, backbone), NativeForm)


def test_a_cut_of_another_activation_has_none(bases):
    backbone = read_base(str(bases["llama"]), 32)
    relu = dataclasses.replace(backbone.base, activation="relu")
    backbone = dataclasses.replace(backbone, base=relu)
    form = native_form(cut_into(backbone, 4, SUMS_TO_1), backbone)
    assert isinstance(form, NoForm) and "its experts are gated relu" in form.why


@pytest.mark.parametrize(
    ("name", "own", "words"),
    [
        ("llama", {"attention_bias": True}, "has biases; use --form custom"),
        ("qwen3", {"use_sliding_window": True}, "has a sliding window in some layers"),
    ],
)
def test_attention_that_the_class_has_not_is_refused(built, name, own, words):
    model, spec, _, form = built(name)
    before = {key: getattr(model.lm.config, key) for key in own}
    try:
        for key, value in own.items():
            setattr(model.lm.config, key, value)
        with pytest.raises(InputError, match=re.escape(words)):
            as_routed(model, spec, form)
    finally:
        for key, value in before.items():
            setattr(model.lm.config, key, value)
