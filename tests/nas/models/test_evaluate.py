"""`nas eval` says of an export what its study said, and of a foreign model what it is worth."""

from __future__ import annotations

import json
import math

import pytest
import torch
from model_tools import EVAL_TOKENS
from transformers import LlamaConfig, LlamaForCausalLM

from nas.command.cli import run
from workers.corpus.tokenizer import train_bpe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    return small.export(tmp_path_factory.mktemp("exported") / "model")


def asked(capsys, model, source, *options):
    arguments = ["eval", str(model), "--corpus", str(source), "--threads", "1", "--json", *options]
    assert run(arguments) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_an_export_has_the_figure_of_its_study(small, exported, capsys):
    told = asked(capsys, exported, small.source, "--tokens", str(EVAL_TOKENS))
    assert told["bits_per_byte"] == pytest.approx(small.result.bits_per_byte, rel=1e-6)
    assert told["bits_per_byte_se"] == pytest.approx(small.result.bits_per_byte_se, rel=1e-5)
    assert told["loss"] == pytest.approx(small.result.loss, rel=1e-6)
    assert told["perplexity"] == pytest.approx(math.exp(told["loss"]))
    assert (told["tokens"], told["windows"], told["seq_len"]) == (EVAL_TOKENS, 32, 32)
    assert told["parameters"] == small.trial.cost["total_params"]
    assert told["tokens_per_second"] > 0 and told["peak_memory_bytes"] > 1e6


def test_another_split_length_and_batch(small, exported, capsys):
    first, second = (
        asked(capsys, exported, small.source, "--split", "test", "--seq-len", "16", "--batch", n)
        for n in ("1", "7")
    )
    assert first["bits_per_byte"] == pytest.approx(second["bits_per_byte"], rel=1e-6)
    assert first["bits_per_byte"] != pytest.approx(small.result.bits_per_byte, rel=1e-4)
    assert first["seq_len"] == 16


def test_a_foreign_model_without_weights_of_worth_says_so_in_bits(small, tmp_path, capsys):
    """A model whose logits are all alike has log2(vocabulary) bits a token."""
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.save_pretrained(tmp_path)
    train_bpe([small.source.read_text()], 300).save(str(tmp_path / "tokenizer.json"))
    told = asked(capsys, tmp_path, small.source)
    assert told["loss"] == pytest.approx(math.log(320), rel=1e-6)
    assert (told["model_type"], told["seq_len"]) == ("llama", 64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seq-len", "64"], "--seq-len is at most what"),
        (["--device", "cuda:99"], "is not there"),
        (["--corpus-option", "max_bytes=90"], "give more text"),
        (["--split", "train"], "'train' is not one of"),
    ],
)
def test_what_does_not_fit_is_one_line(small, exported, capsys, options, words):
    assert run(["eval", str(exported), "--corpus", str(small.source), *options]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert words in line and told.out == ""


@pytest.mark.parametrize("spoilt", ["no config", "no weights", "another kind", "a vocabulary"])
def test_a_directory_that_is_no_such_model_is_one_line(small, tmp_path, capsys, spoilt):
    config = {"model_type": "llama", "vocab_size": 320, "hidden_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 16}
    if spoilt == "another kind":
        config = {"model_type": "vit"}
    if spoilt == "a vocabulary":
        config["vocab_size"] = 290
        LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(tmp_path)
        train_bpe([small.source.read_text()], 300).save(str(tmp_path / "tokenizer.json"))
    elif spoilt != "no config":
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert run(["eval", str(tmp_path), "--corpus", str(small.source)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    wanted = {
        "no config": "holds config.json",
        "a vocabulary": "the tokenizer has 300 tokens, more than the backbone's vocab_size 290",
    }
    assert wanted.get(spoilt, "does not load as a causal language model") in line
