"""What a driver and a worker say to each other: EvalRequest, Progress, EvalResult, WorkerLost.

All are frozen, plain data (they travel through Ray as pickles of standard types).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from search_space.backbone import Backbone
from search_space.checks import TOKENS, real, whole
from search_space.errors import InputError, check_keys, require
from search_space.shown import shown
from search_space.spec import FFNSpec

# A checkpoint's files: the weights and the manifest in the trial's folder, the tokenizer above it.
WEIGHTS, MANIFEST, TOKENIZER = "model.safetensors", "trial.json", "tokenizer.json"
MANIFEST_FORMAT = 2


class Status(StrEnum):
    """Where a trial stands. `RUNNING` is the only one that is not an ending."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self is not Status.RUNNING


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a proxy is trained. The defaults are the low-noise recipe of docs/recipe.md.

    batch_size: sequences a step.  lr: AdamW (embeddings, norms, routers, keys, gates).
    matrix_lr: Muon (weight matrices).  warmup, decay: shares of the FLOPs; the decay is 1 - sqrt.
    grad_clip: on the global gradient norm of AdamW's parameters; 0 turns it off.
    """

    batch_size: int = 8
    lr: float = 1e-2
    matrix_lr: float = 7e-3
    weight_decay: float = 0.0
    warmup: float = 0.02
    decay: float = 0.3
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size, 1, TOKENS)
        for name in ("lr", "matrix_lr"):
            real(name, getattr(self, name), above=0)
        for name in ("weight_decay", "warmup", "decay", "grad_clip"):
            real(name, getattr(self, name), least=0)
        require(
            self.warmup + self.decay <= 1,
            f"warmup + decay are shares of the budget, at most 1: got {self.warmup + self.decay:g}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        if not isinstance(data, Mapping):
            raise InputError(f"recipe is a mapping of its fields: got {shown(data)}")
        check_keys("recipe", data, [f.name for f in fields(cls)])
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """Train one spec with one seed to a FLOP level and evaluate it.

    trial: the store's id of the trial.  corpus_dir: a prepared corpus (workers.corpus).
    train_flops: model FLOPs that training may spend (2 a multiply-add; evaluation not counted).
    eval_tokens: validation tokens that the result is measured on.
    checkpoint_dir: new folder for the checkpoint; empty writes none.
    state_dir: where training keeps its states on the way, a folder or an fsspec URL, so that
        another worker can go on when this one is lost; empty keeps none.
    study, number: the study's uid and the trial's number in it, kept in the checkpoint.
    device: torch device string.  threads: torch threads on the CPU.
    """

    trial: int
    spec: FFNSpec
    backbone: Backbone
    recipe: Recipe
    corpus_dir: str
    train_flops: float
    seed: int = 0
    eval_tokens: int = 65_536
    checkpoint_dir: str = ""
    state_dir: str = ""
    study: str = ""
    number: int = 0
    device: str = "cpu"
    threads: int = 1

    def identity(self) -> dict[str, Any]:
        """What decides the training, and whose it is: plain data for checkpoints and states."""
        return {
            "study": self.study,
            "trial": self.number,
            "spec": self.spec.to_dict(),
            "backbone": self.backbone.to_dict(),
            "recipe": self.recipe.to_dict(),
            "seed": self.seed,
            "train_flops": self.train_flops,
            "corpus": os.path.basename(self.corpus_dir.rstrip("/")),  # named by its content
        }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One point of a running trial's curve.

    flops: model FLOPs spent so far.  loss: training loss in nats a token, the mean since
    the last point.  seconds: since the trial began.
    """

    trial: int
    step: int
    steps: int
    flops: float
    loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A trial's worker died or hung. The trial has not ended: another worker may take it up.

    error: what happened to the worker, in one line.  status: the trial's, if none does.
    """

    trial: int
    error: str
    status: Status = Status.FAILED


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """How a trial ended; the measures are None unless it finished.

    bits_per_byte, bits_per_byte_se: on the validation split, and its standard error over sequences.
    loss: nats a token.  flops: model FLOPs spent.  optimizer_flops: spent beside them.
    active_flops: forward FLOPs a token in inference, with the measured activity.
    activity: share of active blocks by layer.  stats: further measures by name.
    checkpoint: the checkpoint's folder in the study's, or "".  checkpoint_digest: SHA-256 of its
    manifest, which has those of its files.  backend: kernels and device that were used.
    error: one line when the trial did not finish.
    """

    trial: int
    status: Status
    error: str = ""
    bits_per_byte: float | None = None
    bits_per_byte_se: float | None = None
    loss: float | None = None
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    optimizer_flops: float = 0.0
    active_flops: float | None = None
    activity: list[float] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    checkpoint: str = ""
    checkpoint_digest: str = ""
    backend: str = ""
