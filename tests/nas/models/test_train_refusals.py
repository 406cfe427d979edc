"""What `nas train` does not train: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from model_tools import DENSE, write_model
from safetensors.torch import load_file
from train_tools import command, the_line

from nas.command.cli import run
from search_space.spec import FFNSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--flops", "1"], "--flops pays for no step"),
        (["--flops", "nan"], "--flops must be above 0"),
        (["--micro-batch", "5"], "--micro-batch is a part of a batch of 4"),
        (["--recipe", "batch=4"], "recipe: unknown key 'batch'; did you mean 'batch_size'?"),
        (["--recipe", "batch_size"], "--recipe is key=value: got 'batch_size'"),
        (["--corpus-option", "tokenizer=x"], "--corpus-option has no tokenizer"),
        (["--corpus-option", "maxbytes=7"], "corpus: unknown key 'maxbytes'"),
        (["--corpus-option", "max_bytes=90"], "give more text"),
        (["--corpus", "none.txt"], "none.txt"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--device", "quantum"], "device 'quantum' is none that torch knows"),
        (["--track", "mlflow"], "--track mlflow needs the package mlflow"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    small, start, tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run(command(small, start, "out", *options)) == 2
    assert words in the_line(capsys)
    assert list(tmp_path.iterdir()) == []


def spoil_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_tensor(folder):
    from safetensors.torch import save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.proxy.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


SPOILT = {
    "no export": (
        lambda f: spoil_config(f, model_type="qwen3"),
        "model (model_type 'qwen3') names no design",
    ),
    "other design": (
        lambda f: spoil_config(f, spec=FFNSpec(d_ff=120).to_dict()),
        "does not fit its design: layers.0.ffn.layers.0.experts.keys_BGD",
    ),
    "other version": (lambda f: spoil_config(f, spec={"width": 3}), "spec: unknown key 'width'"),
    "a tensor less": (drop_tensor, "its weights lack norm.weight"),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 900), "not whole"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "no model": (lambda f: (f / "config.json").unlink(), "holds config.json"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_directory_that_is_no_model_of_ours_is_one_line(
    small, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    write_model(Path("model"), DENSE)
    spoil, words = SPOILT[name]
    spoil(Path("model"))
    assert run(command(small, "model", "out")) == 2
    assert words in the_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_with_other_files_and_a_disk_without_room(
    small, start, tmp_path, monkeypatch, capsys
):
    (tmp_path / "mine.txt").write_text("keep me")
    assert run(command(small, start, tmp_path)) == 2
    assert "holds other files; choose another --to" in the_line(capsys)
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert run(command(small, start, tmp_path / "out")) == 2
    assert "of disk, and" in the_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_damaged_or_newer_request_is_one_line(small, start, tmp_path, capsys):
    place = tmp_path / "out/training"
    place.mkdir(parents=True)
    for text, words in {
        "{": "is not valid JSON",
        "[]": "is damaged: it is no JSON object",
        '{"format": 2}': "was written by another version (format 2)",
        '{"format": 1}': "is damaged: it has no identity",
    }.items():
        (place / "request.json").write_text(text)
        assert run(command(small, start, tmp_path / "out")) == 2
        assert words in the_line(capsys)
    assert [path.name for path in place.iterdir()] == ["request.json"]
