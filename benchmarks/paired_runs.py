"""A table of designs, each trained with several seeds, with the nats of every window."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.contract import TRAINING, EvalRequest
from search_space.presets import PRESETS
from workers.corpus import prepare
from workers.evaluate import evaluate

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
# The published designs; those that differ from one of them in their placement alone are left out.
DESIGNS = tuple(name for name in PRESETS if PRESETS[name](Backbone()).placement == "all")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One training and what it was measured at.

    bits_per_byte_se: over the windows, of this run alone.
    windows: nats of each.
    """

    design: str
    seed: int
    bits_per_byte: float
    bits_per_byte_se: float
    windows: list[float]


def train(
    designs: Sequence[str],
    seeds: Sequence[int],
    flops: float,
    eval_tokens: int,
    *,
    kept: Path | None,
    report: Callable[[str], None],
) -> list[Measured]:
    """Every design with every seed, on the demo's text, proxy and recipe.

    flops: training FLOPs of a run.
    eval_tokens: validation tokens that each is measured on.
    kept: a file that has a line a run; what it has already of the same settings is not trained.
    report: hears of each run.
    """
    recipe = StudyConfig.load(DEMO).recipe.to_dict()
    settings = {
        "flops": flops,
        "eval_tokens": eval_tokens,
        "recipe": recipe,
        "training": TRAINING,
    }
    known = {(run.design, run.seed): run for run in _read(kept, settings)}
    out = []
    with tempfile.TemporaryDirectory(prefix="paired-") as cache:
        corpus_dir = ""
        for seed in seeds:
            for design in designs:
                if (design, seed) not in known:
                    corpus_dir = corpus_dir or _prepare(cache)
                    run = _train(design, seed, flops, eval_tokens, corpus_dir)
                    _keep(kept, run, settings)
                    report(f"{design}, seed {seed}: {run.bits_per_byte:.4f} bits per byte")
                    known[design, seed] = run
                out.append(known[design, seed])
    return out


def _prepare(cache: str) -> str:
    config = StudyConfig.load(DEMO)
    backbone = config.backbone
    return str(prepare(config.corpus, backbone.vocab_size, backbone.seq_len, cache).dir)


def _train(design: str, seed: int, flops: float, eval_tokens: int, corpus_dir: str) -> Measured:
    config = StudyConfig.load(DEMO)
    result = evaluate(
        EvalRequest(
            evaluation=0,
            spec=PRESETS[design](config.backbone),
            backbone=config.backbone,
            recipe=config.recipe,
            corpus_dir=corpus_dir,
            until_flops=flops,
            seed=seed,
            eval_tokens=eval_tokens,
        ),
        lambda progress: None,
    )
    if result.bits_per_byte is None or result.bits_per_byte_se is None:
        raise RuntimeError(f"{design}, seed {seed}: {result.error}")
    return Measured(
        design=design,
        seed=seed,
        bits_per_byte=result.bits_per_byte,
        bits_per_byte_se=result.bits_per_byte_se,
        windows=result.windows,
    )


def _read(kept: Path | None, settings: dict[str, Any]) -> Iterator[Measured]:
    if kept is None or not kept.exists():
        return
    for line in kept.read_text().splitlines():
        record = json.loads(line)
        if record.pop("settings") == settings:
            yield Measured(**record)


def _keep(kept: Path | None, run: Measured, settings: dict[str, Any]) -> None:
    if kept is not None:
        with kept.open("a") as file:
            file.write(json.dumps(vars(run) | {"settings": settings}) + "\n")
