"""Which designs have a native form, and the nearest to one that has none."""

from __future__ import annotations

import dataclasses

import pytest

from search_space.backbone import Backbone
from search_space.errors import SpecError
from search_space.methods import names
from search_space.methods.avgk import AvgK
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.native import NativeForm, NoForm, native_form
from search_space.presets import PRESETS
from search_space.space import SearchSpace, suggest
from search_space.space.walk import Draw
from search_space.spec import FFNSpec

BACKBONE = Backbone()
SWIGLU = FFNSpec(d_ff=512, expert_width=64, activation="silu", gated=True)


def swiglu(selection, **fields):
    return dataclasses.replace(SWIGLU, selection=selection, **fields)


BALANCED = TopK(k=2, balance_weight=0.01)

PRESET_FORMS = {"mixtral": "Qwen3MoeForCausalLM", "olmoe": "Qwen3MoeForCausalLM"}

FORMS = {
    "SwiGLU": (SWIGLU, "Qwen3ForCausalLM", 0, True),
    "SwiGLU and a shared FFN": (
        dataclasses.replace(SWIGLU, shared_width=24),
        *("Qwen3ForCausalLM", 0, True),
    ),
    "softmax": (swiglu(TopK(k=2)), "Qwen3MoeForCausalLM", 0, False),
    "softmax, normalised": (swiglu(TopK(k=2, normalize=True)), "Qwen3MoeForCausalLM", 0, True),
    "softmax of one": (
        swiglu(TopK(k=1), d_ff=64, expert_width=64),
        *("Qwen3MoeForCausalLM", 0, True),
    ),
    "sigmoid": (swiglu(TopK(k=2, gate="sigmoid")), "Dots1ForCausalLM", 64, True),
    "sigmoid, biased, shared": (
        swiglu(TopK(k=2, gate="sigmoid", bias_rate=0.1), shared_width=128),
        *("Dots1ForCausalLM", 0, True),
    ),
    "a shared FFN of no whole experts": (
        swiglu(TopK(k=2, gate="sigmoid"), shared_width=72),
        *("Dots1ForCausalLM", 56, True),
    ),
    "Avg-K of one": (swiglu(AvgK(k=1)), "Qwen3MoeForCausalLM", 0, True),
    "Avg-K of all": (swiglu(AvgK(k=8)), "Qwen3ForCausalLM", 0, True),
    "direct of all": (swiglu(Direct(k=512), expert_width=1), "Qwen3ForCausalLM", 0, True),
    "hash of one": (swiglu(Hash(k=1), expert_width=512), "Qwen3ForCausalLM", 0, True),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_design_that_a_class_computes_has_it(case):
    spec, architecture, zero_units, llama_cpp = FORMS[case]
    form = native_form(spec, BACKBONE)
    assert isinstance(form, NativeForm)
    assert (form.architecture, form.zero_units) == (architecture, zero_units)
    assert form.llama_cpp == llama_cpp
    assert architecture in form.words and ("llama.cpp" in form.words) is not llama_cpp


NONE = {
    "gelu": (dataclasses.replace(SWIGLU, activation="gelu"), "experts are gated gelu", SWIGLU),
    "plain silu": (dataclasses.replace(SWIGLU, gated=False), "experts are plain silu", SWIGLU),
    "depth": (dataclasses.replace(SWIGLU, depth=2), "it has 2 sub-layers in a layer", SWIGLU),
    "output gate": (dataclasses.replace(SWIGLU, output_gate=True), "gates weigh", SWIGLU),
    "placement": (
        swiglu(TopK(k=2), placement="alternate"),
        "other layers keep the plain FFN",
        swiglu(TopK(k=2)),
    ),
    "softmax and bias": (
        swiglu(TopK(k=2, bias_rate=0.1)),
        "softmax weights and a bias",
        swiglu(TopK(k=2, gate="sigmoid", bias_rate=0.1)),
    ),
    "softmax and shared": (
        swiglu(TopK(k=2), shared_width=64),
        "softmax weights and a shared expert",
        swiglu(TopK(k=2, gate="sigmoid"), shared_width=64),
    ),
    "sigmoid of one": (
        swiglu(TopK(k=1, gate="sigmoid"), expert_width=512, shared_width=64),
        "two experts or more",
        swiglu(TopK(k=1), expert_width=512),
    ),
    "Avg-K and shared": (
        swiglu(AvgK(k=1), shared_width=64),
        "softmax weights and a shared expert",
        swiglu(AvgK(k=1)),
    ),
    "Avg-K of two": (
        swiglu(AvgK(k=2)),
        "no class selects as avgk does",
        swiglu(TopK(k=2, normalize=True)),
    ),
    "hash": (swiglu(Hash(k=1)), "no class selects as hash does", swiglu(TopK(k=1))),
    "straight-through": (
        swiglu(StraightThrough()),
        "no class selects as straight_through does",
        swiglu(TopK(k=4, normalize=True)),
    ),
    "ReLU routing": (
        swiglu(ReLURouting(target_activity=0.25)),
        "no class selects as relu_routing does",
        swiglu(TopK(k=2, normalize=True)),
    ),
    "odd width": (
        swiglu(BALANCED, d_ff=60, expert_width=6),
        "want multiples of 4 for expert_width 6",
        swiglu(BALANCED, d_ff=80, expert_width=8),
    ),
    "all of each of two": (
        swiglu(AvgK(k=4), depth=2),
        "it has 2 sub-layers in a layer",
        swiglu(TopK(k=4, normalize=True)),
    ),
    "narrow experts": (
        swiglu(Direct(k=128), expert_width=1),
        "no class selects as direct does",
        swiglu(TopK(k=8, normalize=True), expert_width=16),
    ),
}


@pytest.mark.parametrize("case", NONE)
def test_a_design_that_no_class_computes_says_why_and_names_the_nearest(case):
    spec, why, nearest = NONE[case]
    form = native_form(spec, BACKBONE)
    assert isinstance(form, NoForm)
    assert why in form.why and "," not in form.why.replace(", and those", "")
    assert form.nearest == nearest
    assert form.words == f"none: {form.why}; nearest: {nearest.label}"


def test_all_reasons_are_said():
    form = native_form(PRESETS["peer_middle"](BACKBONE), BACKBONE)
    assert isinstance(form, NoForm)
    for reason in ("plain gelu", "other layers keep", "selects as product_key does"):
        assert reason in form.why


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_forms_that_they_are_known_for(preset):
    form = native_form(PRESETS[preset](BACKBONE), BACKBONE)
    assert getattr(form, "architecture", None) == PRESET_FORMS.get(preset)


@pytest.mark.parametrize("method", names())
def test_the_nearest_design_has_a_form_wherever_one_looks(method):
    space, seen = SearchSpace(methods=(method,)), 0
    for seed in range(150):
        try:
            spec = suggest(space, Draw(seed), BACKBONE)
        except SpecError:
            continue
        form = native_form(spec, BACKBONE)
        seen += isinstance(form, NoForm)
        if isinstance(form, NoForm):
            assert form.why
            assert isinstance(native_form(form.nearest, BACKBONE), NativeForm), spec.label
    assert seen > 20


def test_where_no_experts_fit_the_model_the_nearest_is_dense():
    narrow = Backbone(d_model=18, n_heads=3)
    spec = swiglu(TopK(k=2), lr_multiplier=2.0)
    form = native_form(spec, narrow)
    assert isinstance(form, NoForm)
    assert form.why == "the classes want multiples of 4 for d_model 18"
    assert form.nearest == FFNSpec(d_ff=128, activation="silu", gated=True, lr_multiplier=2.0)
    assert isinstance(native_form(form.nearest, narrow), NativeForm)
