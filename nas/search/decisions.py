"""What a study may do, what it can do next, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.store.records import EvaluationRecord


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study may do.

    levels: FLOPs of each rung, ascending (`nas.search.rungs.levels`).
    reduction: one in so many goes on.
    decay: the recipe's.
    objectives: names, all minimised.
    bounds: upper bounds by objective, in its unit.
    trials: the most designs.
    flops: the whole budget, in training FLOPs.
    repeat_share: the repeats' part of it.
    seeds: the most runs of a design.
    seed: of the first run of every design; its repeats have the seeds that follow.
    step: FLOPs of the dearest training step. A branch leaves its trunk at a whole step, so a
        promotion may cost almost one more than its levels say.
    """

    levels: tuple[float, ...]
    reduction: float
    decay: float
    objectives: tuple[str, ...]
    bounds: Mapping[str, float] = field(default_factory=dict)
    trials: int
    flops: float
    repeat_share: float = 0.0
    seeds: int = 1
    seed: int = 0
    step: float = 0.0


@dataclass(frozen=True)
class Start:
    """Begin a new design at the lowest rung."""


@dataclass(frozen=True)
class Promote:
    """Continue a run to `rung`, from where `evaluation` left its trunk."""

    evaluation: EvaluationRecord
    rung: int


@dataclass(frozen=True)
class Repeat:
    """Train the trial of that number from scratch to the top rung, with another seed."""

    trial: int
    seed: int


@dataclass(frozen=True)
class TakeUp:
    """Go on with an evaluation that nobody works on, from its last state."""

    evaluation: EvaluationRecord


@dataclass(frozen=True)
class Wait:
    """Nothing to do until something that runs has ended."""


@dataclass(frozen=True)
class Done:
    """Nothing to do, and nothing runs."""


Decision = Start | Promote | Repeat | TakeUp | Wait | Done


@dataclass(frozen=True)
class Counts:
    """Where a study stands. Tuples are by rung and count evaluations of all seeds.

    stopped: to be taken up.
    repeats: evaluations of further seeds, in any state.
    committed: FLOPs charged and reserved.
    charged: FLOPs charged.
    """

    trials: int
    running: tuple[int, ...]
    stopped: tuple[int, ...]
    ended: tuple[int, ...]
    repeats: int
    committed: float
    charged: float
