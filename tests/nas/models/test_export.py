"""An export equals the proxy that trained, in a process without this project."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import get_args

import pytest
import torch
from safetensors.torch import load_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from nas.models import verify
from nas.models.bundle import bundle_sources
from nas.models.checkpoints import find_checkpoint, folder_name
from nas.models.export import export_trial
from nas.models.probe import probe_ids
from nas.models.verify import TOLERANCE
from nas.process.child import run_child
from nas.store import Facts, Store
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe, Status
from search_space.corpus import CorpusSpec
from search_space.cost import model_cost, step_flops
from search_space.design import Placement
from search_space.errors import InputError, WorkFailed
from search_space.methods import names
from search_space.methods.hash import Hash
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.spec import FFNSpec
from workers.corpus import prepare
from workers.evaluate import evaluate
from workers.hf import FFNNASConfig, FFNNASForCausalLM
from workers.model import ProxyLM

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
SPECS = {
    "dense": FFNSpec(d_ff=64, expert_width=16, depth=2, output_gate=True),
    "topk": FFNSpec(
        d_ff=128, expert_width=16, selection=TopK(k=2, bias_rate=0.1), shared_width=16, gated=True
    ),
    "hash": FFNSpec(d_ff=128, expert_width=32, depth=2, selection=Hash(k=2)),
    "straight_through": FFNSpec(d_ff=128, expert_width=16, selection=StraightThrough()),
    **{
        placement: FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2), placement=placement)
        for placement in get_args(Placement)
    },
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return prepare(CorpusSpec(max_bytes=600_000), 300, 32, folder)


def trained(corpus, spec, folder):
    """A finished trial, as the store has it: what `export_trial` takes."""
    with Store.open(f"sqlite:///{folder}/nas.db") as store:
        study = store.create_study("small", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        facts = Facts.from_dict({"corpus": corpus.meta, "corpus_dir": str(corpus.dir)})
        study = store.update_study(study.id, facts=facts)
        until = step_flops(spec, BACKBONE, 4) * 8
        cost = model_cost(spec, BACKBONE).to_dict()
        _, begun = store.add_trial(
            study.id, spec, seed=0, source="test", params={}, until_flops=until, cost=cost
        )
        request = EvalRequest(
            evaluation=begun.id,
            spec=spec,
            backbone=BACKBONE,
            recipe=Recipe(batch_size=4),
            corpus_dir=str(corpus.dir),
            until_flops=until,
            eval_tokens=512,
            checkpoint_dir=str(folder / "nas-runs" / folder_name(study) / "trial-0"),
            study=study.uid,
        )
        result = evaluate(request, lambda p: None)
        assert result.status is Status.FINISHED, result.error
        trial, _ = store.end_evaluation(result)
        return find_checkpoint(store, study, trial), study, trial


# Every other design, drawn: test_parity, in one process for all.
def test_a_fresh_process_without_this_project_computes_the_same(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "run_child", run_child)  # really fresh, not tests/prepared.py
    exported = trained(corpus, SPECS["topk"], tmp_path)
    folder = export_trial(*exported, tmp_path / "model", verify=True)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert not list(tmp_path.glob(".export-*"))


def test_hash_tables_that_a_text_has_filled_come_along(corpus, tmp_path, remote_code):
    checkpoint, study, trial = trained(corpus, SPECS["hash"], tmp_path)
    folder = export_trial(checkpoint, study, trial, tmp_path / "model", verify=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    proxy, ids = ProxyLM(SPECS["hash"], BACKBONE).eval(), torch.tensor([probe_ids(300, 32)])
    load_model(proxy, str(checkpoint.weights))
    with torch.no_grad():
        want = proxy.logits(proxy(ids).hidden_NLD)
        torch.testing.assert_close(model(ids).logits, want, rtol=1e-5, atol=1e-5)


def test_the_check_goes_red_when_weights_differ(corpus, tmp_path, monkeypatch):
    exported = trained(corpus, SPECS["dense"], tmp_path)
    from nas.models import export as module

    write = module._write

    def other(*arguments):
        probed = write(*arguments)
        return dataclasses.replace(probed, logits=probed.logits + 10 * TOLERANCE)

    monkeypatch.setattr(module, "_write", other)
    with pytest.raises(WorkFailed, match="differs from the trained proxy"):
        export_trial(*exported, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".export-*"))


def test_an_export_trains_on_with_transformers_and_lowers_its_loss(corpus, tmp_path, prepared):
    exported = trained(corpus, SPECS["topk"], tmp_path)
    folder = export_trial(*exported, tmp_path / "model", verify=False)
    script = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
ids = tokenizer("def f(x):\\n    return x\\n" * 4, truncation=True, max_length=32)["input_ids"]
rows = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)}] * 64
arguments = TrainingArguments(sys.argv[2], max_steps=12, per_device_train_batch_size=4,
    learning_rate=3e-3, report_to=[], save_strategy="no", logging_steps=1, use_cpu=True)
trainer = Trainer(model, arguments, train_dataset=rows)
trainer.train()
losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
assert losses[-1] < losses[0] - 0.3, losses
model.save_pretrained(sys.argv[2] + "/again")
AutoModelForCausalLM.from_pretrained(sys.argv[2] + "/again", trust_remote_code=True)
"""
    arguments = [sys.executable, "-I", "-c", script, str(folder), str(tmp_path / "out")]
    env = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = prepared.run(arguments, env=env, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]


def test_under_another_trainer_a_bias_moves_once_a_step(tmp_path):
    """Three parts a step: after four steps the busiest expert's bias is four moves lower."""
    rate, steps = 1e-4, 4
    torch.manual_seed(0)
    spec = FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=1, bias_rate=rate))
    model = FFNNASForCausalLM(FFNNASConfig(spec.to_dict(), BACKBONE.to_dict()))
    ids = torch.tensor(probe_ids(300, 16))
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        learning_rate=1e-6,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=[{"input_ids": ids, "labels": ids}] * 48).train()
    model.eval()  # after the last step, too
    for name, bias_B in model.named_buffers():
        if name.endswith("bias_B"):
            assert float(bias_B.min()) == pytest.approx(-steps * rate, rel=1e-3)


def test_transformers_initialises_every_layer_as_it_declares():
    torch.manual_seed(0)
    model = FFNNASForCausalLM(FFNNASConfig(SPECS["topk"].to_dict(), BACKBONE.to_dict()))
    sizes = {name: float(p.detach().abs().mean()) for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    for module in model.modules():
        model._init_weights(module)
    for name, p in model.named_parameters():
        assert float(p.detach().abs().mean()) == pytest.approx(sizes[name], rel=0.2), name


def test_left_padding_does_not_change_a_rows_answer():
    torch.manual_seed(0)
    config = FFNNASConfig(SPECS["topk"].to_dict(), BACKBONE.to_dict())
    model = FFNNASForCausalLM(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    ids = torch.tensor([probe_ids(300, 9)])
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0] * 4 + [1] * 9])
    with torch.no_grad():
        alone = model(ids).logits
        beside = model(padded, attention_mask=mask).logits[:, 4:]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", sorted(names()))
def test_cached_steps_equal_one_pass(method):
    spec = next(spec for p in PRESETS.values() if (spec := p(BACKBONE)).method == method)
    torch.manual_seed(0)
    model = FFNNASForCausalLM(FFNNASConfig(spec.to_dict(), BACKBONE.to_dict())).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    ids = torch.tensor([probe_ids(300, 12)])
    with torch.no_grad():
        whole = model(ids).logits
        out = model(ids[:, :5], use_cache=True)
        parts = [out.logits]
        for cut in ([5, 6], [6, 9], [9, 12]):
            out = model(ids[:, slice(*cut)], past_key_values=out.past_key_values, use_cache=True)
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)


def test_the_bundle_holds_all_it_imports_and_nothing_of_the_service():
    sources = bundle_sources(Hash)
    assert "modeling_ffn_nas.py" in sources
    for text in sources.values():
        assert "from workers." not in text
        assert "from search_space." not in text
        assert "import nas" not in text
    assert not any(name.startswith(("nas", "workers_corpus")) for name in sources)
    homes = {name for name in sources if name.startswith("search_space_methods_")}
    assert homes == {"search_space_methods_hash.py"}
    assert "workers_layers_hash.py" in sources
    assert not {"workers_layers_topk.py", "workers_layers_product_key.py"} & sources.keys()


def test_an_export_never_overwrites_and_says_so(corpus, tmp_path):
    exported = trained(corpus, SPECS["dense"], tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="new or empty directory"):
        export_trial(*exported, tmp_path / "model")
    assert (tmp_path / "model" / "mine.txt").read_text() == "keep me"


def test_the_config_is_plain_json(corpus, tmp_path):
    exported = trained(corpus, SPECS["hash"], tmp_path)
    folder = export_trial(*exported, tmp_path / "model", verify=False)
    config = json.loads((folder / "config.json").read_text())
    assert FFNSpec.from_dict(config["spec"]) == SPECS["hash"]
    assert config["auto_map"]["AutoModelForCausalLM"].startswith("modeling_ffn_nas.")
