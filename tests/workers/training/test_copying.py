"""How far a model copies from its context: what is asked, and of whom."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.spec import FFNSpec
from workers.evaluate import evaluate
from workers.training.copying import SEQUENCES, SHORTEST, copying
from workers.training.measure import EVAL_BATCH

WORDS, LENGTH = 300, 32


class Model:
    """Foresees the token that followed the same one `back` tokens before, with probability `sure`;
    all others alike."""

    def __init__(self, back: int, sure: float) -> None:
        self.back, self.sure, self.seen = back, sure, []

    def eval(self):
        return self

    def __call__(self, ids_NL):
        self.seen.append(ids_NL)
        logits = torch.full((*ids_NL.shape, WORDS), math.log((1 - self.sure) / (WORDS - 1)))
        for at in range(self.back - 1, ids_NL.shape[1]):
            foreseen_N = ids_NL[:, at + 1 - self.back]
            logits[torch.arange(len(ids_NL)), at, foreseen_N] = math.log(self.sure)
        return SimpleNamespace(hidden_NLD=logits)

    def logits(self, hidden_NLD):
        return hidden_NLD


def test_a_model_that_copies_saves_what_the_second_time_costs_less(small_corpus):
    model = Model(LENGTH // 2, sure=0.9)
    nats = copying(model, small_corpus, LENGTH, "cpu")
    assert nats == pytest.approx(math.log(0.9 * WORDS), rel=1e-5)
    assert all(len(ids_NL) <= EVAL_BATCH for ids_NL in model.seen)
    ids_NL = torch.cat(model.seen)
    assert ids_NL.shape == (SEQUENCES, LENGTH)
    assert torch.equal(ids_NL[:, : LENGTH // 2], ids_NL[:, LENGTH // 2 :])
    assert len(ids_NL.unique()) > 50


def test_one_that_foresees_nothing_saves_nothing(small_corpus):
    assert copying(Model(LENGTH, sure=1 / WORDS), small_corpus, LENGTH, "cpu") == 0


def test_the_tokens_are_always_the_same_and_no_generator_moves(small_corpus):
    model, state = Model(1, 0.5), torch.random.get_rng_state()
    for _ in range(2):
        copying(model, small_corpus, LENGTH + 1, "cpu")
    first, second = torch.cat(model.seen).split(SEQUENCES)
    assert torch.equal(first, second)
    assert first.shape == (SEQUENCES, LENGTH), "an odd length leaves the last token out"
    assert torch.equal(state, torch.random.get_rng_state())


def test_short_sequences_are_not_asked(small_corpus):
    assert copying(Model(1, 0.5), small_corpus, SHORTEST - 1, "cpu") is None


@pytest.mark.slow
def test_a_result_has_it(small_corpus):
    backbone = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
    request = EvalRequest(
        evaluation=0,
        spec=FFNSpec(d_ff=32),
        backbone=backbone,
        recipe=Recipe(batch_size=2),
        corpus_dir=str(small_corpus.dir),
        until_flops=1e8,
        eval_tokens=512,
    )
    result = evaluate(request, lambda point: None)
    assert abs(result.stats["copying"]) < 0.1, "one layer cannot copy"
