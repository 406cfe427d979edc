"""A design at another size, as a directory: what it holds, what it says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model_tools import BACKBONE, TOPK
from safetensors.torch import load_file

from nas.command.cli import run
from nas.models import custom
from nas.study import Study
from search_space.backbone import Backbone
from search_space.cost import model_cost
from search_space.scaling import scaled
from search_space.spec import FFNSpec
from workers.corpus.tokenizer import train_bpe
from workers.exported import load_proxy
from workers.training.initial import draw_by_name

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(small, tmp_path_factory):
    """Twice as wide and deep, with room in the vocabulary, in several shards and verified."""
    folder = tmp_path_factory.mktemp("large") / "model"
    with pytest.MonkeyPatch.context() as patch, Study.open("small", small.url) as study:
        patch.setattr(custom, "SHARD", "200KB")
        changes = {"d_model": 64, "n_layers": 4, "n_heads": 4, "vocab_size": 512, "seq_len": 64}
        made = study.export_scaled(folder, changes, 0, seed=3)
    return SimpleNamespace(folder=folder, made=made)


def test_it_is_the_scaled_design_with_the_weights_of_its_seed(large):
    config = json.loads((large.folder / "config.json").read_text())
    backbone = Backbone.from_dict(config["backbone"])
    spec = FFNSpec.from_dict(config["spec"])
    assert (backbone.d_model, backbone.n_layers, backbone.reference_d_ff) == (64, 4, 256)
    assert spec == scaled(TOPK, BACKBONE, backbone)
    files = sorted(large.folder.glob("model-*.safetensors"))
    assert len(files) > 1
    model = load_proxy(files, spec, backbone)
    names = dict(model.named_parameters())
    held = {n: t for file in files for n, t in load_file(file).items()}
    assert sum(t.numel() for t in names.values()) == model_cost(spec, backbone).total_params
    before = {name: t.detach().clone() for name, t in names.items()}
    draw_by_name(model, 3)
    assert all(torch.equal(before[name], t) for name, t in names.items())
    assert {n.removeprefix("model.proxy.") for n in held} >= set(names)


def test_the_card_says_that_nothing_trained_it_and_at_which_rates_to(large):
    card = (large.folder / "README.md").read_text()
    assert "**Initialised and not trained.**" in card
    assert "small, trial 0" in card
    assert (
        f"| parameters | {model_cost(large.made.spec, large.made.backbone).total_params:,} |"
        in card
    )
    assert "Muon's rate" in card and "beyond what the rule was fitted on" in card
    assert "212 of the 512 rows of the embedding are never read" in card


def test_it_samples(large, monkeypatch, tmp_path):
    from nas.models.generate import sample

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path))
    assert sample(large.folder, "def ", tokens=3, temperature=0).startswith("def ")


def test_another_tokenizer_goes_with_it(small, tmp_path):
    train_bpe(["one two three four " * 99], 290).save(str(tmp_path / "tokenizer.json"))
    with Study.open("small", small.url) as study:
        made = study.export_scaled(
            tmp_path / "model", {"n_layers": 1}, 0, tokenizer=str(tmp_path), verify=False
        )
    written = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    given = json.loads((tmp_path / "tokenizer.json").read_text())
    assert written["model"]["merges"] == given["model"]["merges"]
    assert made.tokens == len(given["model"]["vocab"]) < 300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backbone", "d_mode=64"], "unknown key 'd_mode'; did you mean 'd_model'?"),
        (["--backbone", "d_model=64,n_heads=5"], "multiple of 2 * n_heads"),
        (["--backbone", "d_model"], "--backbone is key=value: got 'd_model'"),
        (["--backbone", "d_model=64,d_model=32"], "d_model is given twice"),
        (["--backbone", "d_model=4096,n_layers=60000"], "TB of disk, and"),
        (["--backbone", "d_model=65536,n_layers=65536,n_heads=64"], "of disk, and"),
        (["--backbone", "vocab_size=100"], "vocab_size"),
        (["--backbone", "n_layers=3", "--tokenizer", "./none.json"], "does not exist"),
        (["--backbone", "n_layers=3", "--form", "native"], "got --form native; leave it out"),
        (["--seed", "1"], "--seed goes with --backbone"),
        (["--tokenizer", "x"], "--tokenizer goes with --backbone"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    small, tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", "small", "--trial", "0", "--db", small.url, "--to", "model", *options]
    assert run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("Error: ") and words in line
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_folder_and_says_what_it_is(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", "small", "--trial", "0", "--db", small.url, "--to", "model"]
    assert run([*arguments, "--backbone", "n_layers=1,vocab_size=320", "--no-verify"]) == 0
    told = capsys.readouterr()
    assert told.out == "model\n"
    first, second = told.err.splitlines()
    assert first.startswith("initialised, not trained: topk 2/4x32 gelu")
    assert second.startswith("the tokenizer has 300 tokens: 20 of the 320 rows")
    assert Path("model/config.json").is_file()


def test_a_full_disk_leaves_nothing(small, tmp_path, monkeypatch, capsys):
    from transformers import PreTrainedModel

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    arguments = ["export", "small", "--trial", "0", "--db", small.url, "--to", "model"]
    assert run([*arguments, "--backbone", "n_layers=1"]) == 1
    assert "could not be written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
