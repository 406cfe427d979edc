"""`nas train` goes on with every form of an export, and writes the form that it had."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model_tools import BACKBONE, cut_of, small_llama, stirred, write_form
from safetensors.torch import load_file, save_file
from train_tools import RECIPE, command, the_line
from transformers import AutoModelForCausalLM

from nas.command.cli import run
from nas.models.directory import ModelDirectory
from nas.models.order import Order
from nas.models.reopen import reopened
from nas.models.train import train_model
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.cuts import CUTS, cut_into
from search_space.methods.avgk import AvgK
from search_space.methods.topk import TopK
from search_space.places import corpora_dir
from search_space.spec import FFNSpec
from workers.corpus import prepare
from workers.model import ProxyLM

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

STEPS, SEED = 3, 1
SWIGLU = FFNSpec(d_ff=64, expert_width=16, activation="silu", gated=True)
BIASED = TopK(k=2, gate="sigmoid", normalize=True, bias_rate=0.1, balance_weight=0.01)
PROXIES = {
    "dense": SWIGLU,
    "dense and shared": dataclasses.replace(SWIGLU, shared_width=24),
    "softmax": dataclasses.replace(SWIGLU, selection=TopK(k=2, balance_weight=0.02, z_weight=0.01)),
    "sigmoid": dataclasses.replace(SWIGLU, selection=BIASED, shared_width=24),
    "Avg-K": dataclasses.replace(SWIGLU, selection=AvgK(k=1)),
}
CLASSES = {
    "dense": "Qwen3ForCausalLM",
    "dense and shared": "Qwen3ForCausalLM",
    "softmax": "Qwen3MoeForCausalLM",
    "sigmoid": "Dots1ForCausalLM",
    "Avg-K": "Qwen3MoeForCausalLM",
    "cut with code": "CutLlamaForCausalLM",
    "cut, pruned": "LlamaForCausalLM",
    "cut, routed": "MixtralForCausalLM",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A directory of every form by name."""
    root = tmp_path_factory.mktemp("forms")
    for name, spec in PROXIES.items():
        write_form(root / name, stirred(ProxyLM(spec, BACKBONE)), spec, BACKBONE)
    llama, backbone = small_llama(root / "base")
    cuts = {
        "cut with code": CUTS["dsmoe"](backbone),
        "cut, pruned": CUTS["pruned_magnitude"](backbone),
        "cut, routed": cut_into(backbone, 4, TopK(k=2, normalize=True, balance_weight=0.01)),
    }
    for name, spec in cuts.items():
        write_form(root / name, cut_of(llama, spec, backbone), spec, backbone)
    return root


def logits_of(folder, ids):
    """By transformers' own loader."""
    code = "auto_map" in json.loads((folder / "config.json").read_text())
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=code, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        return type(model).__name__, model.eval()(ids).logits


def order_of(small, source, out, **changes):
    opened = ModelDirectory.open(source)
    order = Order(
        source=source,
        corpus=CorpusSpec(source=str(small.source)),
        flops=step_flops(opened.spec, opened.backbone, 4) * (STEPS + 0.5),
        out=out,
        recipe=dataclasses.replace(RECIPE, lr=0.01, matrix_lr=0.01),
        seed=SEED,
        threads=1,
        eval_tokens=256,
        verify=False,
    )
    return dataclasses.replace(order, **changes)


@pytest.fixture(scope="module")
def trained(sources, small, tmp_path_factory):
    """trained(name): where it was trained, for a few steps."""
    root, done = tmp_path_factory.mktemp("trained"), {}

    def train(name):
        if name not in done:
            result = train_model(
                order_of(small, sources / name, root / name), print, lambda point: None
            )
            done[name] = SimpleNamespace(folder=root / name, **result)
        return done[name]

    return train


@pytest.mark.parametrize("name", CLASSES)
def test_it_begins_with_the_loss_of_the_export(sources, trained, small, name):
    source = sources / name
    corpus = prepare(
        CorpusSpec(source=str(small.source), tokenizer=str(source)), 300, 32, corpora_dir()
    )
    inputs, targets = (torch.from_numpy(part) for part in corpus.batch(0, SEED, 4, 32))
    found, logits = logits_of(source, inputs)
    assert found == CLASSES[name]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    lines = (trained(name).folder / "training/log.jsonl").read_text().splitlines()
    if name != "cut with code":  # which opens other experts in training than in evaluation
        assert json.loads(lines[0])["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert len(lines) == trained(name).steps == STEPS


@pytest.mark.parametrize("name", CLASSES)
def test_what_it_writes_has_the_form_and_is_what_was_trained(sources, trained, name):
    out = trained(name).folder
    ids = torch.arange(32)[None] * 7 % 300
    found, logits = logits_of(out, ids)
    assert found == CLASSES[name]
    opened = ModelDirectory.open(out)
    model = reopened(opened).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model.logits(model(ids).hidden_NLD), logits, rtol=1e-4, atol=1e-4
        )
    _, before = logits_of(sources / name, ids)
    assert (logits - before).abs().max() > 0.05
    assert bool(list(out.glob("*.py"))) == (name == "cut with code")
    assert opened.spec == ModelDirectory.open(sources / name).spec


def test_the_balancing_bias_of_a_native_model_moves(sources, trained):
    name = "model.layers.0.mlp.gate.e_score_correction_bias"
    moved = load_file(trained("sigmoid").folder / "model.safetensors")[name]
    before = load_file(sources / "sigmoid/model.safetensors")[name]
    steps = (moved - before) / 0.1
    assert float(steps.abs().max()) > 0.5
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


def test_it_goes_on_from_what_it_has_written(sources, trained, small, tmp_path):
    result = train_model(
        order_of(small, trained("softmax").folder, tmp_path / "more", verify=True),
        print,
        lambda point: None,
    )
    assert result["bits_per_byte_before"] == pytest.approx(trained("softmax").bits_per_byte)
    card = (tmp_path / "more/README.md").read_text()
    assert "transformers' own Qwen3MoeForCausalLM" in card and "no code beside it" in card


def test_half_precision_is_read(sources, small, tmp_path):
    source = ModelDirectory.open(sources / "Avg-K")
    write_form(
        tmp_path / "half", reopened(source), source.spec, source.backbone, dtype=torch.bfloat16
    )
    result = train_model(
        order_of(small, tmp_path / "half", tmp_path / "out"), print, lambda point: None
    )
    assert result["steps"] == STEPS


def changed(folder, name, change):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigured(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not None}))


EMBED, GATE = "model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight"
SPOILT = {
    "another table": (lambda f: changed(f, EMBED, lambda t: t + 0.1), "trained by other tools"),
    "other widths": (lambda f: changed(f, GATE, lambda t: t[:-1].clone()), "does not hold its"),
    "no design": (lambda f: reconfigured(f, ffn_nas=None), "names no design"),
    "no mapping": (lambda f: reconfigured(f, ffn_nas=[3]), "names no design"),
    "another class": (
        lambda f: reconfigured(f, architectures=["LlamaForCausalLM"]),
        "['LlamaForCausalLM'], which dense 4x16 swiglu",
    ),
    "another version": (
        lambda f: reconfigured(f, ffn_nas={"spec": {"width": 3}}),
        "unknown key 'width'",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_native_model_that_is_not_its_design_is_one_line(
    small, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    spoil, words = SPOILT[name]
    write_form(Path("model"), stirred(ProxyLM(SWIGLU, BACKBONE)), SWIGLU, BACKBONE)
    spoil(Path("model"))
    assert run(command(small, "model", "out")) == 2
    assert words in the_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
