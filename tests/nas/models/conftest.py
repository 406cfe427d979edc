"""A small study in a database, with a trial that was trained: what exports start from."""

from __future__ import annotations

import pytest
from model_tools import BACKBONE, EVAL_TOKENS, TEXT, TOPK, SmallStudy

from nas.models.checkpoints import folder_name
from nas.store import Facts, Store
from search_space.contract import EvalRequest, Recipe, Status
from search_space.corpus import CorpusSpec
from search_space.cost import model_cost, step_flops
from workers.corpus import prepare
from workers.evaluate import evaluate


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
