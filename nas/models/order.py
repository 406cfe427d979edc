"""`Order`: what `nas train` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from search_space.contract import Recipe
from search_space.corpus import CorpusSpec


@dataclass(frozen=True, kw_only=True)
class Order:
    """What `nas train` is asked for.

    source: the model directory.
    corpus: the text; its tokenizer is the directory's.
    flops: model FLOPs that the training may spend, from its first step.
    out: the folder of the training.
    micro_batch: sequences that are read at once; 0 for a whole batch.
    threads: of torch, on the CPU; 0 for torch's own number.
    keep_seconds: between two states.
    trackers: names of `TRACKERS`.
    verify: load the model in a fresh process before it is kept.
    """

    source: Path
    corpus: CorpusSpec
    flops: float
    out: Path
    recipe: Recipe = field(default_factory=Recipe)
    micro_batch: int = 0
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    keep_seconds: float = 60.0
    eval_tokens: int = 65_536
    trackers: tuple[str, ...] = ()
    verify: bool = True
