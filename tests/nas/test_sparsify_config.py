"""A study that cuts a pretrained model: what its file may say, and what is learnt of the base."""

from __future__ import annotations

import dataclasses
import json

import pytest

from nas.base_model import read_base
from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.base import cuttable
from search_space.contract import Recipe
from search_space.cost import model_cost
from search_space.cuts import CUTS, cut_into
from search_space.errors import InputError, SpecError
from search_space.methods.topk import TopK
from search_space.placement import reference
from search_space.presets import PRESETS
from search_space.rates import CUT_SHARE, rates
from search_space.space import look
from search_space.spec import FFNSpec

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rope_theta": 5000.0,
}


def base(folder, weights=b"0" * 1000, **changes):
    """A checkpoint whose weights nobody reads here. A change of None leaves a key out."""
    folder.mkdir(exist_ok=True)
    config = {k: v for k, v in (LLAMA | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


def study(model, **changes):
    return {
        "kind": "sparsify",
        "base_model": model,
        "backbone": {"seq_len": 32},
        "budget": {"trials": 3, "trial_flops": 1e10},
        "eval_tokens": 64,
    } | changes


def test_the_backbone_is_the_bases(tmp_path):
    config = StudyConfig.from_dict(study(base(tmp_path / "base")))
    shape = config.backbone
    assert (shape.d_model, shape.n_layers, shape.n_heads, shape.vocab_size) == (32, 2, 4, 300)
    assert (shape.seq_len, shape.reference_d_ff, shape.rope_theta) == (32, 64, 5000.0)
    assert (shape.base.n_kv_heads, shape.base.head_dim, shape.base.tied) == (2, 8, False)
    assert config.corpus.tokenizer == shape.base.model
    assert config.space.match == "units"
    assert config.space.methods == tuple(name for name in cuttable() if name != "dense")


def test_an_export_of_a_dense_design_is_a_base(tmp_path):
    own = Backbone(d_model=32, n_layers=2, n_heads=4, vocab_size=300, seq_len=64)
    carried = {"spec": FFNSpec(d_ff=48, shared_width=16).to_dict(), "backbone": own.to_dict()}
    folder = base(tmp_path / "base", model_type="ffn_nas", **carried)
    config = StudyConfig.from_dict(study(folder, warm_start=list(CUTS)))
    shape = config.backbone
    assert (shape.d_model, shape.seq_len, shape.reference_d_ff) == (32, 32, 64)
    assert (shape.base.own, shape.base.gated, shape.base.activation) == (True, False, "gelu")
    assert shape.foreign is None and config.corpus.tokenizer == shape.base.model
    for spec in look(config.space, shape):
        assert (spec.d_ff, spec.gated, spec.activation) == (64, False, "gelu")
    stored = json.loads(json.dumps(config.to_dict()))
    assert StudyConfig.from_dict(stored) == config
    # The same model without a base costs what it did.
    dense = reference(shape)
    assert model_cost(dense, shape) == model_cost(dense, dataclasses.replace(shape, base=None))


def test_a_stored_study_is_read_without_its_base(tmp_path):
    folder = tmp_path / "base"
    config = StudyConfig.from_dict(study(base(folder), warm_start=list(CUTS)))
    stored = json.loads(json.dumps(config.to_dict()))
    for path in folder.iterdir():
        path.unlink()
    assert StudyConfig.from_dict(stored) == config


def test_other_weights_are_another_base(tmp_path):
    folder = tmp_path / "base"
    first = read_base(base(folder), 32).base
    assert read_base(base(folder), 32).base == first
    for weights in (b"0" * 999 + b"1", b"1" + b"0" * 999, b"0" * 1001):
        assert read_base(base(folder, weights), 32).base.digest != first.digest
    assert read_base(base(folder, hidden_act="gelu"), 32).base.digest != first.digest


def test_every_design_of_the_space_has_all_units(tmp_path):
    config = StudyConfig.from_dict(study(base(tmp_path / "base")))
    found = list(look(config.space, config.backbone))
    assert {spec.method for spec in found} == set(config.space.methods)
    for spec in found:
        assert (spec.d_ff, spec.gated, spec.activation) == (64, True, "silu")
        assert (spec.depth, spec.shared_width, spec.output_gate) == (1, 0, False)


def test_a_cut_costs_what_the_dense_model_does_and_its_gates(tmp_path):
    backbone = read_base(base(tmp_path / "base"), 32)
    whole = model_cost(reference(backbone), backbone)
    cut = model_cost(CUTS["llama_moe"](backbone), backbone)
    assert cut.total_params - whole.total_params == 2 * 8 * 32  # the routers
    assert cut.active_flops < whole.active_flops


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "family 'gpt2'; known are llama"),
        ({"model_type": None}, "family None"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"hidden_act": "tanh"}, "activation 'tanh'"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"intermediate_size": None}, "no intermediate_size"),
        ({"hidden_size": "32"}, "no hidden_size"),
        ({"max_position_embeddings": 16}, "16 positions"),
    ],
)
def test_what_is_no_base_is_one_line(tmp_path, changes, words):
    model = base(tmp_path / "base", **changes)
    with pytest.raises(InputError, match=words) as error:
        StudyConfig.from_dict(study(model))
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"holds config.json"):
        read_base(str(tmp_path), 32)
    with pytest.raises(InputError, match="there is no folder"):
        read_base(str(tmp_path / "none"), 32)
    model = base(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \*.safetensors"):
        read_base(model, 32)


def test_a_hub_model_that_cannot_be_had_is_one_line(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    class Answer:
        headers, status_code, request = {}, 403, None

    def gated(*arguments, **options):
        raise GatedRepoError("403: access is restricted\nask its authors", response=Answer())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    with pytest.raises(InputError, match="log in with hf auth login") as error:
        read_base("some/model", 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "pretrain"}, "belong together"),
        ({"kind": "prune"}, "kind"),
        ({"base_model": ""}, "belong together"),
        ({"base_model": 3}, "a folder or a Hub id"),
        ({"backbone": {"d_model": 64}}, "d_model"),
        ({"backbone": 3}, "backbone is a mapping"),
        ({"backbone": {"seq_len": "long"}}, "seq_len must be a whole number"),
        ({"corpus": [1]}, "corpus is a mapping"),
        ({"space": "all"}, "space is a mapping"),
        ({"corpus": {"tokenizer": "other"}}, "leave corpus.tokenizer out"),
        ({"space": {"match": "free"}}, "match: units"),
        ({"space": {"methods": ["hash"]}}, "hash"),
        ({"warm_start": ["olmoe"]}, "no preset is named 'olmoe'"),
        ({"warm_start": [{"d_ff": 128, "gated": True, "activation": "silu"}]}, "at most its 64"),
        ({"warm_start": [{"d_ff": 32, "activation": "silu"}]}, "gated with silu"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, changes, words):
    with pytest.raises(InputError, match=words) as error:
        StudyConfig.from_dict(study(base(tmp_path / "base"), **changes))
    assert "\n" not in str(error.value)


def test_a_study_from_nothing_has_no_cut():
    budget = {"trials": 1, "trial_flops": 1e13}
    with pytest.raises(InputError, match="match: units is for studies that cut"):
        StudyConfig.from_dict({"budget": budget, "space": {"match": "units"}})
    cut = {"d_ff": 512, "cut": "clustered"}
    with pytest.raises(InputError, match="cut clustered is for kind: sparsify"):
        StudyConfig.from_dict({"budget": budget, "warm_start": [cut]})
    plain = StudyConfig.from_dict({"budget": budget}).to_dict()
    assert not {"kind", "base_model"} & plain.keys()
    assert "cut" not in plain["space"]
    assert "base" not in plain["backbone"]


def test_numbers_that_do_not_divide_are_refused(tmp_path):
    backbone = read_base(base(tmp_path / "base"), 32)
    with pytest.raises(SpecError, match="7 experts do not divide the 64 hidden units"):
        cut_into(backbone, 7, TopK(k=2))


def test_published_designs_have_no_cut_in_their_keys():
    from search_space.backbone import Backbone

    assert all("cut" not in preset(Backbone()).to_dict() for preset in PRESETS.values())


def test_the_rule_gives_a_pretrained_model_a_tenth(tmp_path):
    backbone = read_base(base(tmp_path / "base"), 32)
    spec, recipe = reference(backbone), Recipe()
    whole = rates(recipe.shape(spec, backbone, 1e11))
    own = recipe.rates(spec, backbone, 1e11)
    assert own == pytest.approx([CUT_SHARE * rate for rate in whole])
    given = dataclasses.replace(recipe, lr=0.5)
    assert given.rates(spec, backbone, 1e11).lr == 0.5
