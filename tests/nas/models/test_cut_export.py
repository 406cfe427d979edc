"""Trials of a study that cut a pretrained model, as directories that transformers loads."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
)

from nas.base_model import read_base
from nas.models.checkpoints import find_checkpoint, folder_name
from nas.models.cut import load_cut
from nas.models.export import export_trial
from nas.store import Facts, Store
from search_space.contract import EvalRequest, Recipe, Status
from search_space.corpus import CorpusSpec
from search_space.cost import model_cost, step_flops
from search_space.cuts import CUTS
from search_space.errors import InputError
from workers.corpus import prepare
from workers.evaluate import evaluate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small Llama with a tokenizer that has a template and a padding of its own."""
    folder = tmp_path_factory.mktemp("base") / "small-llama"
    corpus = prepare(CorpusSpec(max_bytes=600_000), 300, 32, tmp_path_factory.mktemp("corpus"))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=310,
        max_position_embeddings=64,
        eos_token_id=corpus.meta["eos_id"],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(corpus.tokenizer_path)),
        eos_token="<|endoftext|>",
        pad_token="<|mine|>",
        chat_template="{{ messages }}",
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """Finished trials by name, each as `export_trial` takes it."""
    folder = tmp_path_factory.mktemp("study")
    backbone = read_base(str(base), 32)
    corpus = prepare(
        CorpusSpec(max_bytes=600_000, tokenizer=str(base)), 310, 32, folder / "corpora"
    )
    found = {}
    with Store.open(f"sqlite:///{folder}/nas.db") as store:
        study = store.create_study("cut", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        facts = Facts.from_dict({"corpus": corpus.meta, "corpus_dir": str(corpus.dir)})
        study = store.update_study(study.id, facts=facts)
        for number, name in enumerate(("dsmoe", "llama_moe", "pruned_magnitude")):
            spec = CUTS[name](backbone)
            until, cost = step_flops(spec, backbone, 2) * 3, model_cost(spec, backbone).to_dict()
            _, begun = store.add_trial(
                study.id, spec, seed=0, source=name, params={}, until_flops=until, cost=cost
            )
            request = EvalRequest(
                evaluation=begun.id,
                spec=spec,
                backbone=backbone,
                recipe=Recipe(batch_size=2, precision="float32"),
                corpus_dir=str(corpus.dir),
                until_flops=until,
                eval_tokens=256,
                number=number,
                checkpoint_dir=str(folder / "nas-runs" / folder_name(study) / f"trial-{number}"),
                study=study.uid,
            )
            result = evaluate(request, lambda progress: None)
            assert result.status is Status.FINISHED, result.error
            trial, _ = store.end_evaluation(result)
            found[name] = find_checkpoint(store, study, trial), study, trial
    return found


@pytest.mark.parametrize(("name", "verify"), [("dsmoe", True), ("llama_moe", False)])
def test_a_routed_cut_is_its_family_with_code(trained, base, tmp_path, name, verify):
    folder = export_trial(*trained[name], tmp_path / "model", form="custom", verify=verify)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "ffn_nas_llama"
    assert config["ffn"]["backbone"]["base"]["model"] == "small-llama"
    assert str(base) not in "".join(p.read_text() for p in folder.glob("*.json"))
    assert "small-llama" in (folder / "README.md").read_text()


def test_a_cut_by_top_k_is_a_class_with_experts_and_needs_no_code(trained, base, tmp_path):
    folder = export_trial(*trained["llama_moe"], tmp_path / "model", verify=True)
    assert not list(folder.glob("*.py"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (type(model), model.config.num_local_experts) == (MixtralForCausalLM, 8)
    assert str(base) not in "".join(p.read_text() for p in folder.glob("*.json"))
    assert "transformers' own MixtralForCausalLM" in (folder / "README.md").read_text()


def test_a_pruned_model_needs_no_code(trained, tmp_path):
    checkpoint, study, trial = trained["pruned_magnitude"]
    folder = export_trial(checkpoint, study, trial, tmp_path / "model", verify=False)
    assert not list(folder.glob("*.py"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (type(model), model.config.intermediate_size) == (LlamaForCausalLM, 32)
    proxy, ids = load_cut(checkpoint), torch.arange(32)[None] * 7 % 300
    with torch.no_grad():
        want = proxy.logits(proxy(ids).hidden_NLD)
        torch.testing.assert_close(model(ids).logits, want, rtol=1e-5, atol=1e-5)


def test_the_tokenizer_is_the_bases_own(trained, base, tmp_path):
    folder = export_trial(*trained["pruned_magnitude"], tmp_path / "model", verify=False)
    own, given = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(base)
    assert AutoTokenizer.from_pretrained(folder / "tokenizer").chat_template == own.chat_template
    assert (own.chat_template, own.pad_token) == (given.chat_template, "<|mine|>")
    assert own("def f(x):").input_ids == given("def f(x):").input_ids


def test_a_base_that_is_gone_is_not_needed(trained, base, tmp_path):
    away = tmp_path / "away"
    shutil.move(base, away)
    try:
        folder = export_trial(*trained["dsmoe"], tmp_path / "model", verify=False)
    finally:
        shutil.move(away, base)
    assert (folder / "tokenizer.json").is_file()


def test_native_is_refused_where_there_is_none(trained, tmp_path):
    with pytest.raises(
        InputError,
        match=r"no class selects as straight_through does; .* dense 1x32 swiglu activation",
    ):
        export_trial(*trained["dsmoe"], tmp_path / "model", form="native")
    assert not (tmp_path / "model").exists()


def test_another_bases_configuration_is_refused(trained, tmp_path):
    checkpoint, _, _ = trained["dsmoe"]
    path = checkpoint.weights.with_name("base_config.json")
    before = path.read_text()
    path.write_text(before.replace('"hidden_size": 32', '"hidden_size": 64'))
    try:
        with pytest.raises(InputError, match="does not hold the weights"):
            export_trial(*trained["dsmoe"], tmp_path / "model")
    finally:
        path.write_text(before)
    assert not (tmp_path / "model").exists()
