"""The comparison of trunks: its runs are the product's, and its verdict the table's."""

from __future__ import annotations

import pytest
import torch

from benchmarks.recipe import scaled
from benchmarks.trunks import CONSTANT, POWERS, Comparison, losses, power, rows
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import step_flops
from search_space.spec import FFNSpec
from workers.evaluate import evaluate

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = FFNSpec(d_ff=32)
RECIPE = Recipe(batch_size=2, warmup=2)
PRICE = step_flops(SPEC, BACKBONE, 2)


@pytest.fixture(scope="module")
def comparison(small_corpus):
    return Comparison(
        spec=SPEC,
        backbone=BACKBONE,
        recipe=RECIPE,
        corpus=small_corpus,
        eval_tokens=256,
        flops=PRICE * 45.5,
        seeds=1,
        multiples=(0.5, 1.0),
    )


@pytest.fixture(scope="module")
def measured(comparison):
    torch.set_num_threads(1)
    told = []
    found = losses(comparison, told.append)
    assert len(told) == 3 * 2
    return found


def test_a_constant_trunks_branch_is_the_run_made_for_that_length(comparison, measured):
    assert set(measured) == {(t, a) for t in (CONSTANT, *POWERS) for a in (0.5, 1.0)}
    rates = RECIPE.rates(SPEC, BACKBONE, comparison.flops)
    for level, bits in zip(comparison.levels, measured[CONSTANT, 0.5], strict=True):
        request = EvalRequest(
            evaluation=0,
            spec=SPEC,
            backbone=BACKBONE,
            recipe=scaled(RECIPE, rates, 0.5),
            corpus_dir=str(comparison.corpus.dir),
            until_flops=level,
            eval_tokens=256,
        )
        assert evaluate(request, lambda point: None).bits_per_byte == bits
    assert len({tuple(bits) for bits in measured.values()}) == 6, "trunks and rates differ"


def test_a_power_trunk_has_the_recipes_rate_at_the_lowest_rung(comparison):
    assert comparison.levels == pytest.approx([PRICE * 45.5 / 9, PRICE * 45.5 / 3, PRICE * 45.5])
    trunks = comparison.trunks()
    assert [trunk(4) for trunk in trunks.values()] == [1, 1, 1]  # 5 steps up to that rung
    assert power(-0.5, 100)(399) == pytest.approx(0.5)


def test_each_trunk_is_held_against_the_best_run_of_each_length():
    measured = {
        (CONSTANT, 1.0): [3.0, 2.0, 1.5],
        (CONSTANT, 0.5): [3.2, 1.9, 1.1],
        ("power", 1.0): [3.1, 2.1, 1.2],
        ("power", 0.5): [3.1, 2.2, 1.2],
    }
    table = {row.name: row.value for row in rows([1.0, 3.0, 9.0], measured)}
    assert table == {
        "best run for 1 FLOPs, A 1": 3.0,
        "best run for 3 FLOPs, A 0.5": 1.9,
        "best run for 9 FLOPs, A 0.5": 1.1,
        "constant, A 0.5, 1 FLOPs": pytest.approx(0.2),
        "constant, A 0.5, 3 FLOPs": 0,
        "constant, A 0.5, 9 FLOPs": 0,
        "constant, A 0.5, mean": pytest.approx(0.2 / 3),
        "power, A 1, 1 FLOPs": pytest.approx(0.1),
        "power, A 1, 3 FLOPs": pytest.approx(0.2),
        "power, A 1, 9 FLOPs": pytest.approx(0.1),
        "power, A 1, mean": pytest.approx(0.4 / 3),
        "the trunk that loses least": CONSTANT,
    }
    assert rows([1.0, 3.0, 9.0], measured)[-1].holds
    better = measured | {("power", 1.0): [1.0, 1.0, 1.0]}
    assert not rows([1.0, 3.0, 9.0], better)[-1].holds
