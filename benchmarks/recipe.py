"""The recipe as a measuring instrument: spread over seeds, and what another learning rate does.

Trains the dense design of examples/demo.yaml with three seeds at the recipe's learning rates, at
half of them and at twice them. `python -m benchmarks.recipe --json FILE`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from statistics import mean

from benchmarks.report import Row, at_most, main
from nas.config import StudyConfig
from search_space.contract import EvalRequest, Recipe
from search_space.presets import PRESETS
from search_space.rates import Rates
from workers.corpus import prepare
from workers.evaluate import evaluate

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
SEEDS = (0, 1, 2)
FACTORS = (1.0, 0.5, 2.0)
UNIT = "bits per byte"
MOST_SPREAD = 0.01  # bits per byte, largest minus smallest over the seeds
MOST_SHIFT = 0.015  # bits per byte, between the means at two learning rates


def rows() -> list[Row]:
    """A row a trial, then the spread over the seeds and the shifts of the mean with their bars."""
    config = StudyConfig.load(DEMO)
    backbone = config.backbone
    rates = config.recipe.rates(PRESETS["dense"](backbone), backbone, config.budget.trial_flops)
    out, bits = [], {}
    with tempfile.TemporaryDirectory() as cache:
        corpus = prepare(config.corpus, backbone.vocab_size, backbone.seq_len, cache)
        for factor in FACTORS:
            recipe = scaled(config.recipe, rates, factor)
            bits[factor] = [_bits(config, recipe, seed, str(corpus.dir)) for seed in SEEDS]
            for seed, value in zip(SEEDS, bits[factor], strict=True):
                out.append(Row(f"learning rates x{factor:g}, seed {seed}", value, UNIT))
    spread = max(bits[1.0]) - min(bits[1.0])
    out.append(at_most("spread over the seeds", spread, MOST_SPREAD, UNIT))
    for factor in FACTORS[1:]:
        shift = abs(mean(bits[factor]) - mean(bits[1.0]))
        out.append(at_most(f"shift of the mean at x{factor:g}", shift, MOST_SHIFT, UNIT))
    return out


def scaled(recipe: Recipe, rates: Rates, factor: float) -> Recipe:
    """The recipe with these learning rates times `factor`."""
    return dataclasses.replace(recipe, matrix_lr=rates.matrix_lr * factor, lr=rates.lr * factor)


def _bits(config: StudyConfig, recipe: Recipe, seed: int, corpus_dir: str) -> float:
    result = evaluate(
        EvalRequest(
            evaluation=0,
            spec=PRESETS["dense"](config.backbone),
            backbone=config.backbone,
            recipe=recipe,
            corpus_dir=corpus_dir,
            until_flops=config.budget.trial_flops,
            seed=seed,
            eval_tokens=config.eval_tokens,
        ),
        lambda progress: None,
    )
    if result.bits_per_byte is None:
        raise RuntimeError(f"the trial did not finish: {result.error}")
    return result.bits_per_byte


if __name__ == "__main__":
    main(rows, __doc__)
