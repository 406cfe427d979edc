"""What is compared of the published designs: which, from which seeds, and trained for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from benchmarks.preset_studies import Outcome
from nas.config import StudyConfig
from nas.machines import Device, Workers
from nas.search.settings import Budget
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.errors import nearest, require
from search_space.matching import Equal, MatchedPreset
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

BACKBONE = Backbone(
    d_model=128, n_layers=4, n_heads=4, vocab_size=1024, seq_len=128, reference_d_ff=512
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared: presets times seeds, each trained with `flops` and then measured on
    `eval_tokens` of the validation split, or on all of it where it has fewer.

    match: the cost of the dense FFN that each design's has; None for the published widths.
    device: that trains.
    baseline: whom the others are compared with.
    """

    baseline: ClassVar[str] = "dense"

    presets: tuple[str, ...] = tuple(PRESETS)
    seeds: tuple[int, ...] = (0, 1, 2)
    match: Equal | None = "active_flops"
    flops: float = 6e12
    backbone: Backbone = BACKBONE
    recipe: Recipe = field(default_factory=Recipe)
    eval_tokens: int = 2**18
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for name, values in (("presets", self.presets), ("seeds", self.seeds)):
            require(
                0 < len(values) == len(set(values)),
                f"{name} must be at least one, each once: got {','.join(map(str, values))!r}",
            )
        self.check_presets()
        require(min(self.seeds) >= 0, f"seeds must be at least 0: got {min(self.seeds)}")
        require(
            self.eval_tokens >= self.backbone.seq_len,
            f"eval-tokens must be at least one sequence, {self.backbone.seq_len}: "
            f"got {self.eval_tokens}",
        )
        steps = [
            step_flops(self.spec(name), self.backbone, self.recipe.batch_size)
            for name in self.presets
        ]
        require(
            math.isfinite(self.flops) and self.flops >= max(steps),
            f"flops must pay for one step of every design, {max(steps):.3g}: got {self.flops:g}",
        )

    def check_presets(self) -> None:
        """Refuse a name that is none."""
        for name in self.presets:
            require(name in PRESETS, f"presets: none is named {name!r}; {nearest(name, PRESETS)}")

    def spec(self, preset: str) -> FFNSpec:
        """The design that a preset's name stands for here."""
        if self.match:
            return MatchedPreset(preset, self.match).spec(self.backbone)
        return PRESETS[preset](self.backbone)

    def study(self, seed: int, text: CorpusSpec, workers: int | None) -> StudyConfig:
        """All designs with one seed.

        workers: trainings at once; None for one a core.
        """
        trials = len(self.presets)
        # The designs bound the study. Its FLOPs must not: ReLU routing may spend a little more than
        # it was granted, and the last design would not be begun.
        budget = Budget(trials=trials, trial_flops=self.flops, flops=2 * trials * self.flops)
        return StudyConfig(
            name=f"presets-{seed}",
            seed=seed,
            budget=budget,
            corpus=text,
            backbone=self.backbone,
            recipe=self.recipe,
            warm_start=tuple(
                MatchedPreset(name, self.match) if self.match else name for name in self.presets
            ),
            workers=Workers(count=workers or 0, device=self.device),
            eval_tokens=self.eval_tokens,
        )


Outcomes = dict[tuple[str, int], Outcome]  # by preset and seed
