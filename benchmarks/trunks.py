"""Which trunk loses least at the rungs: a constant rate, or a power of the step.

A trunk has one rate for all rungs, so it cannot be right for each. Every trunk runs the dense
design on the corpus and the proxy of examples/demo.yaml, or of another study, at several multiples
A of its rates, promoted over three rungs of factor 3, and is held against the best run made for
just one rung's length. A constant trunk's branch is such a run: it is the same to the bit.
`python -m benchmarks.trunks [--study FILE] --json FILE`.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from benchmarks.recipe import DEMO, UNIT, scaled
from benchmarks.report import Row, parser, publish
from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import step_flops
from search_space.presets import PRESETS
from search_space.spec import FFNSpec
from workers.corpus import Corpus, prepare
from workers.training.keeping import States
from workers.training.loop import Training, build_proxy
from workers.training.losses import Diverged
from workers.training.measure import evaluate_quality
from workers.training.schedule import Trunk, constant

REDUCTION, RUNGS = 3, 3
MULTIPLES = (0.5, 0.7, 1.0, 1.4, 2.0)
CONSTANT = "constant"
POWERS = {"(step / reference)^-1/3": -1 / 3, "(step / reference)^-1/2": -1 / 2}

Losses = dict[tuple[str, float], list[float]]  # by trunk and multiple: a rung's mean over seeds


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, on which design and text.

    flops: of the top rung.
    multiples: of the recipe's rates, at which each trunk is run.
    """

    spec: FFNSpec
    backbone: Backbone
    recipe: Recipe
    corpus: Corpus
    eval_tokens: int
    flops: float
    seeds: int = 2
    multiples: tuple[float, ...] = MULTIPLES

    @property
    def levels(self) -> list[float]:
        """FLOPs of the rungs, the lowest first."""
        return [self.flops / REDUCTION**i for i in reversed(range(RUNGS))]

    def trunks(self) -> dict[str, Trunk]:
        """By name; a power trunk has the recipe's rates where the lowest rung ends."""
        price = step_flops(self.spec, self.backbone, self.recipe.batch_size)
        reference = max(1, int(self.levels[0] / price))
        powers = {name: power(exponent, reference) for name, exponent in POWERS.items()}
        return {CONSTANT: constant} | powers


def power(exponent: float, reference: int) -> Trunk:
    """The factor (step / reference)^exponent of each step; the first step is 1."""
    return lambda step: ((step + 1) / reference) ** exponent


def by_promotion(comparison: Comparison, trunk: Trunk, multiple: float, seed: int) -> list[float]:
    """Bits per byte at each rung of one run; infinite from where it diverges."""
    spec, backbone = comparison.spec, comparison.backbone
    rates = comparison.recipe.rates(spec, backbone, comparison.flops)
    bits, start = [math.inf] * RUNGS, 0.0
    with tempfile.TemporaryDirectory() as place:
        for rung, level in enumerate(comparison.levels):
            request = EvalRequest(
                evaluation=rung,
                spec=spec,
                backbone=backbone,
                recipe=scaled(comparison.recipe, rates, multiple),
                corpus_dir=str(comparison.corpus.dir),
                rung=rung,
                until_flops=level,
                start_flops=start,
                seed=seed,
                state_dir=place,
                keep_trunk=rung + 1 < RUNGS,
            )
            try:
                bits[rung], start = evaluation(comparison, request, trunk)
            except Diverged:
                break
    return bits


def evaluation(comparison: Comparison, request: EvalRequest, trunk: Trunk) -> tuple[float, float]:
    """Bits per byte at a rung, and where the branch left the trunk."""
    corpus, seq_len = comparison.corpus, comparison.backbone.seq_len
    model = build_proxy(request, corpus)
    training = Training(model, request, corpus, lambda progress: None, trunk)
    states = States(training)
    states.take_up(training)
    trained = training.run(states.after_step, states.at_branch)
    quality = evaluate_quality(model, corpus, comparison.eval_tokens, seq_len, request.device)
    return quality.bits_per_byte, trained.trunk_flops


def losses(comparison: Comparison, tell: Callable[[str], None]) -> Losses:
    """Every trunk at every multiple.

    tell: gets a line a run.
    """
    out: Losses = {}
    for (name, trunk), multiple in product(comparison.trunks().items(), comparison.multiples):
        runs = []
        for seed in range(comparison.seeds):
            runs.append(by_promotion(comparison, trunk, multiple, seed))
            shown = ", ".join(f"{bits:.4f}" for bits in runs[-1])
            tell(f"{name}, A {multiple:g}, seed {seed}: {shown} {UNIT}")
        out[name, multiple] = [mean(at_rung) for at_rung in zip(*runs, strict=True)]
    return out


def rows(levels: list[float], measured: Losses) -> list[Row]:
    """The reference of each length, the bits that each trunk loses against it with its one best A,
    and the verdict."""
    out, references = [], []
    for rung, level in enumerate(levels):
        best, multiple = min(
            (bits[rung], multiple)
            for (name, multiple), bits in measured.items()
            if name == CONSTANT
        )
        references.append(best)
        out.append(Row(f"best run for {level:.2g} FLOPs, A {multiple:g}", best, UNIT))
    lost = {}
    for trunk in dict.fromkeys(name for name, _ in measured):
        of_trunk = {multiple: bits for (name, multiple), bits in measured.items() if name == trunk}
        multiple = min(of_trunk, key=lambda multiple: mean(of_trunk[multiple]))
        more = [bits - best for bits, best in zip(of_trunk[multiple], references, strict=True)]
        lost[trunk] = mean(more)
        for level, value in zip(levels, more, strict=True):
            out.append(Row(f"{trunk}, A {multiple:g}, {level:.2g} FLOPs", value, UNIT))
        out.append(Row(f"{trunk}, A {multiple:g}, mean", lost[trunk], UNIT))
    least = min(lost, key=lost.__getitem__)
    out.append(Row("the trunk that loses least", least, "", CONSTANT, least == CONSTANT))
    return out


def of_study(file: Path, corpus_cache: Path, flops: float, seeds: int) -> Comparison:
    """The comparison on a study's corpus and proxy, at its recipe's rates."""
    config = StudyConfig.load(file)
    backbone = config.backbone
    corpus = prepare(config.corpus, backbone.vocab_size, backbone.seq_len, corpus_cache)
    return Comparison(
        spec=PRESETS["dense"](backbone),
        backbone=backbone,
        recipe=config.recipe,
        corpus=corpus,
        eval_tokens=config.eval_tokens,
        flops=flops,
        seeds=seeds,
    )


def main() -> int:
    """The command."""
    options = parser(__doc__)
    options.add_argument("--study", type=Path, default=DEMO, help="its corpus, proxy and recipe")
    options.add_argument("--flops", type=float, default=4e11, help="of the top rung")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--multiples", nargs="*", type=float, default=MULTIPLES)
    asked = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        comparison = of_study(asked.study, Path(cache), asked.flops, asked.seeds)
        comparison = replace(comparison, multiples=tuple(asked.multiples))
        measured = losses(comparison, lambda line: print(line, file=sys.stderr, flush=True))
    return publish(rows(comparison.levels, measured), asked.json)


if __name__ == "__main__":
    sys.exit(main())
