"""The comparison of cuts: a tiny base, trained and cut in this process."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from benchmarks import base_model, sparsify
from benchmarks.preset_rows import rows
from benchmarks.presets import compare, kept_in
from benchmarks.report import publish
from benchmarks.simulated_pool import SimulatedPool
from benchmarks.sparsify_picture import draw, read
from nas.base_model import read_base
from search_space.contract import Recipe
from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus import prepare
from workers.evaluate import evaluate

pytestmark = pytest.mark.slow

NAMES = ("original", "topk half", "dsmoe lambda 1", "pruned by activation, half")


@pytest.fixture(scope="module")
def base(small_corpus, tmp_path_factory):
    """The benchmark's model, but small and hardly trained."""
    shape = base_model.backbone()
    llama = dataclasses.replace(shape.base, head_dim=8, n_kv_heads=2)
    shape = dataclasses.replace(
        shape, d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32, reference_d_ff=32,
        base=llama,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_model, "EVAL_TOKENS", 1024)
        model, found = base_model.train(shape, small_corpus, 4e8, seed=0)
    folder = tmp_path_factory.mktemp("base") / "model"
    base_model.write(model, small_corpus, folder)
    return folder, {row.name: row.value for row in found}


class Pool(SimulatedPool):
    """One worker, in this process."""

    def __init__(self):
        super().__init__(1, lambda request: (1.0, [evaluate(request, lambda progress: None)]))

    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        corpus = prepare(spec, vocab_size, seq_len, cache_dir)
        return {"dir": str(corpus.dir), "meta": corpus.meta, "ngram_bits_per_byte": {}}


@pytest.fixture(scope="module")
def compared(base, tmp_path_factory):
    folder, _ = base
    backbone = read_base(str(folder), 32)
    comparison = sparsify.Sparsified(
        presets=NAMES,
        seeds=(0, 1),
        match=None,
        flops=4e7,
        backbone=backbone,
        recipe=Recipe(batch_size=2),
        eval_tokens=512,
        base=backbone.base.model,
    )
    text = CorpusSpec(max_bytes=600_000, tokenizer=backbone.base.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFN_NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        with kept_in(tmp_path_factory.mktemp("state")) as store:
            outcomes = compare(
                comparison,
                text,
                store=store,
                workers=1,
                console=Console(file=io.StringIO()),
                pool_factory=lambda config: Pool(),
            )
            more = sparsify.more_rows(comparison, outcomes, store)
    return comparison, [*rows(comparison, outcomes), *more]


def test_the_base_learns_and_is_a_llama(base):
    folder, found = base
    assert found["validation"] < 5
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["intermediate_size"]) == ("llama", 32)


def test_every_design_has_its_rows(compared):
    _, found = compared
    values = {row.name: row.value for row in found}
    assert all(row.holds for row in found)
    for name in NAMES:
        assert values[f"{name}: perplexity"] > 1
    assert values["original: by layer"] == "1.00 1.00"
    assert values["topk half: activity"] == 0.5
    assert "topk half: from original" in values
    assert values["pruned by activation, half: active FLOPs"] < values["original: active FLOPs"]


def test_a_design_nobody_knows_is_one_line(compared):
    comparison, _ = compared
    with pytest.raises(InputError, match="none is named 'topk quarter'"):
        dataclasses.replace(comparison, presets=("original", "topk quarter"))


def test_the_command_refuses_what_is_no_base(tmp_path, capsys):
    assert sparsify.main(["--base", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_picture_has_every_design(compared, tmp_path):
    _, found = compared
    publish(found, tmp_path / "rows.json")
    assert set(read(tmp_path / "rows.json")) == set(NAMES)
    drawn = [len(trace.x) for trace in draw(tmp_path / "rows.json").data]
    assert sum(drawn) == len(NAMES) - 1
