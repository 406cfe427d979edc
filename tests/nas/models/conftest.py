"""Exports of every selection method with drawn weights; a small study that exports start from."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import drawn
import pytest
import torch
from model_tools import BACKBONE, EVAL_TOKENS, TEXT, TOPK, SmallStudy

from nas.models.checkpoints import folder_name
from nas.models.tokenizer import PAD
from nas.store import Facts, Store
from nas.study import Study
from search_space.contract import EvalRequest, Recipe, Status
from search_space.corpus import CorpusSpec
from search_space.cost import model_cost, step_flops
from workers.corpus import prepare
from workers.evaluate import evaluate


@pytest.fixture(scope="session")
def tokenizer_json():
    """The tokenizer.json of a small study."""
    return drawn.tokenizer_text()


@pytest.fixture(scope="session")
def exports(tmp_path_factory, tokenizer_json):
    """exports(name): the directory of a design of drawn.SPECS, written when first asked for."""
    root = tmp_path_factory.mktemp("exports")

    def directory(name):
        folder = root / name
        if not folder.exists():
            drawn.write_export(folder, drawn.SPECS[name], tokenizer_json)
        return folder

    return directory


@pytest.fixture(scope="session")
def remote_code(tmp_path_factory):
    """transformers keeps the code that it loads in a folder of the tests."""
    from transformers import dynamic_module_utils

    folder = str(tmp_path_factory.mktemp("modules"))
    # An earlier test may have loaded some from elsewhere, into a package of this name.
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.syspath_prepend(folder)
        Path(folder, "__init__.py").touch()
        yield folder


@pytest.fixture(scope="session")
def load(exports, remote_code):
    """load(name, **options): a model of its own in evaluation mode, by the code in its export."""
    from transformers import AutoModelForCausalLM

    loaded = {}

    def model(name, **options):
        if options:
            return AutoModelForCausalLM.from_pretrained(
                exports(name), trust_remote_code=True, **options
            )
        if name not in loaded:
            loaded[name] = AutoModelForCausalLM.from_pretrained(
                exports(name), trust_remote_code=True
            )
        return copy.deepcopy(loaded[name])

    return model


@pytest.fixture(scope="session")
def tokenizer(exports, remote_code):
    """The tokenizer of all of them."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(exports("switch"), trust_remote_code=True)
    assert found.pad_token == PAD
    return found


@pytest.fixture(scope="session")
def ids():
    """(1, 12) token ids."""
    return torch.tensor([[(7919 * i + 13) % 250 for i in range(12)]])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small models are fastest so, and other tests may run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No progress bars of transformers in a failure's report."""
    monkeypatch.setitem(os.environ, "HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(scope="package")
def small(tmp_path_factory) -> SmallStudy:
    """A top-k design that was trained for 8 steps."""
    folder = tmp_path_factory.mktemp("study")
    source = folder / "text.txt"
    source.write_text(TEXT)
    corpus = prepare(CorpusSpec(source=str(source)), 300, 32, folder / "corpora")
    recipe = Recipe(batch_size=4, precision="float32")
    config = {"backbone": BACKBONE.to_dict(), "recipe": recipe.to_dict()}
    url = f"sqlite:///{folder}/nas.db"
    with Store.open(url) as store:
        study = store.create_study("small", config, 0, 1e12, ["bits_per_byte", "active_flops"])
        facts = Facts.from_dict({"corpus": corpus.meta, "corpus_dir": str(corpus.dir)})
        study = store.update_study(study.id, facts=facts)
        until = step_flops(TOPK, BACKBONE, 4) * 8
        cost = model_cost(TOPK, BACKBONE).to_dict()
        _, begun = store.add_trial(
            study.id, TOPK, seed=0, source="test", params={}, until_flops=until, cost=cost
        )
        request = EvalRequest(
            evaluation=begun.id,
            spec=TOPK,
            backbone=BACKBONE,
            recipe=recipe,
            corpus_dir=str(corpus.dir),
            until_flops=until,
            eval_tokens=EVAL_TOKENS,
            checkpoint_dir=str(folder / "nas-runs" / folder_name(study) / "trial-0"),
            study=study.uid,
        )
        result = evaluate(request, lambda p: None)
        assert result.status is Status.FINISHED, result.error
        trial, _ = store.end_evaluation(result)
    return SmallStudy(url, folder, study, trial, result, corpus, source)


@pytest.fixture(scope="package")
def start(small, tmp_path_factory):
    """The small study's design with its initial weights, which its trial has begun with."""
    folder = tmp_path_factory.mktemp("start") / "model"
    with Study.open("small", small.url) as study:
        study.export_scaled(folder, {}, 0, verify=False)
    return folder


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A cache of corpora, and of the code that transformers loads, of a module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFN_NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield
