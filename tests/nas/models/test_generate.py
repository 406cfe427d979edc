"""Sampling from a directory that is not what it should be: one line that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.models.bundle import bundle_sources
from nas.models.generate import sample
from search_space.backbone import Backbone
from search_space.errors import InputError
from search_space.methods.dense import Dense
from search_space.spec import FFNSpec
from workers.hf import FFNNASConfig, FFNNASForCausalLM

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """An export with untrained weights."""
    from workers.corpus.tokenizer import train_bpe

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "model"
    config = FFNNASConfig(FFNSpec(d_ff=32).to_dict(), BACKBONE.to_dict())
    config.auto_map = {
        "AutoConfig": "modeling_ffn_nas.FFNNASConfig",
        "AutoModelForCausalLM": "modeling_ffn_nas.FFNNASForCausalLM",
    }
    torch.manual_seed(0)
    FFNNASForCausalLM(config).save_pretrained(folder)
    for name, text in bundle_sources(Dense).items():
        (folder / name).write_text(text)
    train_bpe(["def f(x):\n    return x\n" * 50], 300).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )
    return folder


def test_a_whole_directory_samples(model):
    assert sample(model, "def ", tokens=4, temperature=0).startswith("def ")


def test_the_command_prints_the_text_and_nothing_else(model):
    code = "from nas.command.cli import main; main()"
    arguments = ["generate", str(model), "--tokens", "4", "--temperature", "0"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("def ")


def test_weights_that_lack_a_tensor_are_never_drawn_at_random(model):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    dropped = sorted(name for name in tensors if "ffn" in name)[0]
    del tensors[dropped]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="is not whole: its weights lack"):
        sample(model, "def ", tokens=2)


def test_a_configuration_far_larger_than_its_weights_takes_no_memory(model):
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["backbone"]["vocab_size"] = 300_000
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"names [\d,]+ parameters, its weights have"):
        sample(model, "def ", tokens=2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: os.mkfifo(f / "extra"), "extra is a pipe, device or broken link"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"x" * 40_000),
            "does not work as a model",
        ),
        (lambda f: (f / "modeling_ffn_nas.py").write_text("1 / 0"), "does not work as a model"),
        (lambda f: (f / "config.json").write_text("[1]"), "is not a JSON object"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_a_damaged_directory_is_one_line(model: Path, damage, message):
    damage(model)
    with pytest.raises(InputError, match=message) as error:
        sample(model, "def ", tokens=2)
    assert "\n" not in str(error.value)
