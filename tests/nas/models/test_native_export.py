"""A native export computes what the proxy does, for transformers alone and by its own names."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from test_export import corpus, trained  # noqa: F401 (corpus is a fixture)

from nas.models.export import export_trial
from nas.models.generate import check_size
from nas.models.native import native_model, save_native
from search_space.backbone import Backbone
from search_space.errors import InputError, SpecError
from search_space.methods.avgk import AvgK
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.native import NativeForm, NoForm, native_form
from search_space.presets import PRESETS
from search_space.space import SearchSpace, suggest
from search_space.space.walk import Draw
from search_space.spec import FFNSpec
from workers.model import ProxyLM

pytestmark = pytest.mark.slow

BACKBONE = Backbone(
    d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=32, rope_theta=5_000.0
)
ENDS = {"eos_token_id": 0, "pad_token_id": 1}
DRAWN = 8  # of a method
TOLERANCE = 2e-5  # of float32 logits whose largest are about 5

SWIGLU = FFNSpec(d_ff=64, expert_width=16, activation="silu", gated=True)
BIASED = TopK(k=2, gate="sigmoid", normalize=True, bias_rate=0.1)
KNOWN = {
    "SwiGLU": SWIGLU,
    "SwiGLU and shared": replace(SWIGLU, shared_width=24),
    "softmax": replace(SWIGLU, selection=TopK(k=2)),
    "softmax, normalised": replace(SWIGLU, selection=TopK(k=3, normalize=True)),
    "softmax of one": replace(SWIGLU, d_ff=16, selection=TopK(k=1)),
    "narrow experts": replace(SWIGLU, expert_width=4, selection=TopK(k=4)),
    "sigmoid": replace(SWIGLU, selection=TopK(k=2, gate="sigmoid")),
    "sigmoid, biased": replace(SWIGLU, selection=BIASED),
    "sigmoid, biased, shared": replace(SWIGLU, selection=BIASED, shared_width=32),
    "sigmoid, shared, filled up": replace(SWIGLU, selection=BIASED, shared_width=24),
    "Avg-K of one": replace(SWIGLU, selection=AvgK(k=1)),
    "Avg-K of all": replace(SWIGLU, selection=AvgK(k=4), shared_width=16),
    "direct of all": replace(SWIGLU, expert_width=1, selection=Direct(k=64)),
    "hash of one": replace(SWIGLU, expert_width=64, selection=Hash(k=1)),
}


def drawn(method: str) -> dict[str, FFNSpec]:
    """Designs of a space in which many qualify, by chance."""
    space = SearchSpace(
        methods=(method,), activation=("silu",), gated=(True,), depth=(1,), placement=("all",)
    )
    found: dict[str, FFNSpec] = {}
    for seed in range(500):
        try:
            spec = suggest(space, Draw(seed), BACKBONE)
        except SpecError:
            continue
        if len(found) < DRAWN and isinstance(native_form(spec, BACKBONE), NativeForm):
            found[f"drawn {len(found)}: {spec.label}"] = spec
    return found


def designs() -> dict[str, FFNSpec]:
    presets = {name: preset(BACKBONE) for name, preset in PRESETS.items()}
    native = {n: s for n, s in presets.items() if isinstance(native_form(s, BACKBONE), NativeForm)}
    return KNOWN | native | drawn("dense") | drawn("topk") | drawn("avgk")


DESIGNS = designs()


def random_proxy(spec: FFNSpec, backbone: Backbone = BACKBONE) -> ProxyLM:
    """One in which no tensor has its initial value: gains, norms, biases and zeros neither."""
    torch.manual_seed(0)
    proxy = ProxyLM(spec, backbone).eval()
    with torch.no_grad():
        for name, p in proxy.named_parameters():
            if p.ndim == 1:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            else:
                p.normal_(std=0.15 if name.startswith("embed") else p.shape[-1] ** -0.5)
        for name, buffer in proxy.named_buffers():
            if name.endswith("bias_B") and spec.selection.bias_rate:
                buffer.normal_(std=0.2)
    return proxy


def written(spec: FFNSpec, folder, backbone: Backbone = BACKBONE) -> ProxyLM:
    """A random proxy, whose native form lies in the folder."""
    proxy, form = random_proxy(spec, backbone), native_form(spec, BACKBONE)
    assert isinstance(form, NativeForm)
    save_native(native_model(proxy, spec, backbone, form, ENDS), folder)
    return proxy


# In an interpreter that knows nothing of this project; no code is trusted.
_LOAD = """
import sys, json, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
answers = {}
for name, folder in json.loads(sys.argv[1]).items():
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    ids, want = torch.load(folder + "/probe.pt")
    with torch.no_grad():
        error = float((model(ids).logits - want).abs().max())
    options = dict(do_sample=False, max_new_tokens=8, attention_mask=torch.ones_like(ids[:, :8]))
    cached, plain = (model.generate(ids[:, :8], use_cache=u, **options) for u in (True, False))
    answers[name] = {
        "class": type(model).__name__,
        "error": error,
        "cached": bool((cached == plain).all()),
        "lost": sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]),
        "ours": sorted({"nas", "workers", "search_space"} & sys.modules.keys()),
    }
print(json.dumps(answers))
"""


def fresh_answers(root, prepared):
    """What a fresh process finds of each design's native form."""
    folders = {}
    ids = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(1))
    for number, (name, spec) in enumerate(DESIGNS.items()):
        folder = root / str(number)
        proxy = written(spec, folder)
        with torch.no_grad():
            want = proxy.logits(proxy(ids).hidden_NLD)
        assert want.abs().max() > 1
        torch.save((ids, want), folder / "probe.pt")
        folders[name] = str(folder)
    command = [sys.executable, "-I", "-c", _LOAD, json.dumps(folders)]
    done = prepared.run(command, env=os.environ | {"HF_MODULES_CACHE": str(root)}, cwd=str(root))
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_design_with_a_native_form_is_it_in_a_fresh_process(tmp_path, prepared):
    answers = fresh_answers(tmp_path, prepared)  # one test, so that one process does for all
    assert answers.keys() == DESIGNS.keys()
    for name, answer in answers.items():
        assert answer["class"] == native_form(DESIGNS[name], BACKBONE).architecture, name
        assert answer["error"] <= TOLERANCE, (name, answer["error"])
        assert answer["cached"], name
        assert answer["lost"] == answer["ours"] == [], name


def test_enough_designs_were_drawn():
    methods = [spec.method for name, spec in DESIGNS.items() if name.startswith("drawn")]
    assert {name: methods.count(name) for name in methods} == {
        "dense": DRAWN,
        "topk": DRAWN,
        "avgk": DRAWN,
    }
    assert {"mixtral", "olmoe"} <= DESIGNS.keys()


ATTENTION = {
    "input_layernorm.weight": (32,),
    "self_attn.q_proj.weight": (32, 32),
    "self_attn.k_proj.weight": (32, 32),
    "self_attn.v_proj.weight": (32, 32),
    "self_attn.o_proj.weight": (32, 32),
    "self_attn.q_norm.weight": (16,),
    "self_attn.k_norm.weight": (16,),
    "post_attention_layernorm.weight": (32,),
}
ROUTED = {"mlp.gate.weight": (4, 32)} | {
    f"mlp.experts.{expert}.{part}_proj.weight": (32, 16) if part == "down" else (16, 32)
    for expert in range(4)
    for part in ("gate", "up", "down")
}
# Of one layer, as vLLM's loaders and llama.cpp's converter read them.
NAMES = {
    "SwiGLU": {
        "mlp.gate_proj.weight": (64, 32),
        "mlp.up_proj.weight": (64, 32),
        "mlp.down_proj.weight": (32, 64),
    },
    "softmax": ROUTED,
    "sigmoid, shared, filled up": ROUTED
    | {
        "mlp.gate.e_score_correction_bias": (4,),
        "mlp.shared_experts.gate_proj.weight": (32, 32),
        "mlp.shared_experts.up_proj.weight": (32, 32),
        "mlp.shared_experts.down_proj.weight": (32, 32),
    },
}
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000.0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "dtype": "float32",
    "eos_token_id": 0,
    "pad_token_id": 1,
}
CONFIG = {
    "SwiGLU": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "intermediate_size": 64,
        "use_sliding_window": False,
    },
    "softmax": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "output_router_logits": False,
    },
    "sigmoid, shared, filled up": {
        "architectures": ["Dots1ForCausalLM"],
        "model_type": "dots1",
        "n_routed_experts": 4,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "moe_layer_freq": 1,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "sliding_window": None,
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_configuration_are_those_that_engines_read(tmp_path, name):
    proxy = written(DESIGNS[name], tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        head = file.get_tensor("lm_head.weight")
    layer = ATTENTION | NAMES[name]
    assert found == {
        "model.embed_tokens.weight": (300, 32),
        "model.norm.weight": (32,),
        "lm_head.weight": (300, 32),
        **{f"model.layers.{i}.{key}": shape for i in (0, 1) for key, shape in layer.items()},
    }
    assert (head == proxy.embed.weight).all()
    config = json.loads((tmp_path / "config.json").read_text())
    expected = SHAPE | CONFIG[name]
    assert {key: config.get(key, "missing") for key in expected} == expected
    assert not {"auto_map", "spec", "backbone"} & config.keys()
    ends = json.loads((tmp_path / "generation_config.json").read_text())
    assert (ends["eos_token_id"], ends["pad_token_id"]) == (0, 1)


def test_the_balancing_loss_has_the_coefficient_of_its_class(tmp_path):
    """Of even loads, by which both count alike: ours is alpha, theirs counts k choices a token."""
    from transformers import AutoModelForCausalLM

    spec = replace(SWIGLU, selection=TopK(k=2, balance_weight=0.03))
    proxy = random_proxy(spec, one := replace(BACKBONE, n_layers=1)).train()
    form = native_form(spec, BACKBONE)
    save_native(native_model(proxy, spec, one, form, ENDS), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    ids = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(1))
    plain = model(ids, labels=ids).loss
    balanced = model(ids, labels=ids, output_router_logits=True).loss
    torch.testing.assert_close(balanced - plain, proxy(ids).aux_loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["auto", "native"])
def test_a_trained_design_exports_as_its_class_and_is_checked(corpus, tmp_path, form):  # noqa: F811
    spec = replace(SWIGLU, selection=TopK(k=2) if form == "auto" else BIASED)
    exported = trained(corpus, spec, tmp_path)
    folder = export_trial(*exported, tmp_path / "model", form=form, verify=form == "auto")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not any(name.endswith(".py") for name in names)
    card = (folder / "README.md").read_text()
    assert native_form(spec, BACKBONE).architecture in card and "trust_remote_code" not in card


def test_a_form_that_does_not_exist_is_refused_and_nothing_is_left(corpus, tmp_path):  # noqa: F811
    spec = replace(SWIGLU, selection=StraightThrough())
    exported = trained(corpus, spec, tmp_path)
    form = native_form(spec, BACKBONE)
    assert isinstance(form, NoForm)
    with pytest.raises(InputError) as caught:
        export_trial(*exported, tmp_path / "model", form="native")
    message = str(caught.value)
    assert form.why in message and form.nearest.label in message and "--form custom" in message
    assert "\n" not in message and not (tmp_path / "model").exists()
    folder = export_trial(*exported, tmp_path / "model", verify=False)
    assert (folder / "modeling_ffn_nas.py").is_file(), "auto is custom where no class fits"


def test_a_design_with_a_native_form_still_exports_its_code(corpus, tmp_path):  # noqa: F811
    exported = trained(corpus, SWIGLU, tmp_path)
    folder = export_trial(*exported, tmp_path / "model", form="custom", verify=False)
    assert (folder / "modeling_ffn_nas.py").is_file()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "ffn_nas"


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "moe_intermediate_size"])
@pytest.mark.parametrize("name", ["SwiGLU", "softmax", "sigmoid"])
def test_a_configuration_far_larger_than_its_weights_takes_no_memory(tmp_path, name, key):
    written(DESIGNS[name], tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    key = "intermediate_size" if name == "SwiGLU" and "inter" in key else key
    check_size(tmp_path)
    path.write_text(json.dumps(config | {key: 100_000}))
    with pytest.raises(InputError, match=r"names [\d,]+ parameters, its weights have"):
        check_size(tmp_path)
    path.write_text(json.dumps(config | {key: "100"}))
    with pytest.raises(InputError, match=f"{key} must be a whole number"):
        check_size(tmp_path)
