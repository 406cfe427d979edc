"""The recipe as a measuring instrument: spread over seeds, and what another learning rate does.

Trains the dense design of examples/demo.yaml with three seeds at the recipe's learning rates, at
half of them and at twice them. `python -m benchmarks.recipe --json FILE`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from benchmarks.report import Row, main
from nas.config import StudyConfig
from search_space.contract import EvalRequest, Recipe
from search_space.presets import PRESETS
from workers.corpus import prepare
from workers.evaluate import evaluate

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
SEEDS = (0, 1, 2)
FACTORS = (1.0, 0.5, 2.0)
MOST_SPREAD = 0.01  # bits per byte, largest minus smallest over the seeds
MOST_SHIFT = 0.015  # bits per byte, between the means at two learning rates


def rows() -> list[Row]:
    """A row a trial, then the spread and the two shifts with their bars."""
    config = StudyConfig.load(DEMO)
    backbone = config.backbone
    out, means = [], {}
    with tempfile.TemporaryDirectory() as cache:
        corpus = prepare(config.corpus, backbone.vocab_size, backbone.seq_len, cache)
        for factor in FACTORS:
            recipe = scaled(config.recipe, factor)
            bits = [_bits(config, recipe, seed, str(corpus.dir)) for seed in SEEDS]
            means[factor] = sum(bits) / len(bits)
            for seed, value in zip(SEEDS, bits, strict=True):
                out.append(Row(f"lr x{factor:g}, seed {seed}", value, "bits per byte"))
            if factor == 1.0:
                spread = max(bits) - min(bits)
                out.append(
                    Row(
                        "spread over seeds",
                        spread,
                        "bits per byte",
                        f"<= {MOST_SPREAD}",
                        spread <= MOST_SPREAD,
                    )
                )
    for factor in FACTORS[1:]:
        shift = abs(means[factor] - means[1.0])
        name = f"shift of the mean at lr x{factor:g}"
        out.append(Row(name, shift, "bits per byte", f"<= {MOST_SHIFT}", shift <= MOST_SHIFT))
    return out


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with both learning rates times `factor`."""
    rates = {"lr": recipe.lr * factor, "matrix_lr": recipe.matrix_lr * factor}
    return dataclasses.replace(recipe, **rates)


def _bits(config: StudyConfig, recipe: Recipe, seed: int, corpus_dir: str) -> float:
    result = evaluate(
        EvalRequest(
            trial=0,
            spec=PRESETS["dense"](config.backbone),
            backbone=config.backbone,
            recipe=recipe,
            corpus_dir=corpus_dir,
            train_flops=config.budget.trial_flops,
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
