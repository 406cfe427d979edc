"""What a driver and a worker say to each other: EvalRequest, Progress, LogLine, EvalResult,
WorkerLost.

A trial is a design, a run one training of it with one seed, an evaluation a run that is brought to
a rung and measured there.

All are frozen, plain data (they travel through Ray as pickles of standard types).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, get_args

from search_space.backbone import Backbone
from search_space.checks import TOKENS, is_whole, known_word, real, section, whole
from search_space.cost import model_cost
from search_space.errors import require, shown
from search_space.placement import placed
from search_space.rates import AUTO, CUT_SHARE, Rate, Rates, Shape, rates
from search_space.spec import FFNSpec

# A checkpoint's files: the weights and the manifest in the trial's folder, the tokenizer above it.
WEIGHTS, MANIFEST, TOKENIZER = "model.safetensors", "trial.json", "tokenizer.json"
BASE_CONFIG = "base_config.json"  # of a cut model, beside its weights: of the model that was cut
MANIFEST_FORMAT = 2
TRAINING = 7  # grows when the same request is trained in another way: results are not comparable


class Status(StrEnum):
    """Where an evaluation or a trial stands.

    An evaluation is running, stopped (it can be taken up), or has ended in one of the other ways.
    A trial is `FINISHED` once it was measured at the top rung, and `PAUSED` while a lower rung
    is the highest that it was measured at; an evaluation is never paused.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    FINISHED = "finished"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing is running now."""
        return self is not Status.RUNNING

    @property
    def final(self) -> bool:
        """Whether an evaluation has its result, which never changes."""
        return self not in (Status.RUNNING, Status.STOPPED)


Precision = Literal["auto", "float32", "bfloat16"]

FAILURES = (Status.FAILED, Status.DIVERGED, Status.OUT_OF_MEMORY)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a proxy is trained. The defaults are the low-noise recipe of docs/recipe.md.

    batch_size: sequences a step.
    lr: AdamW's (embeddings, norms, routers, keys, gates, tables); "auto" is the rule of
        search_space.rates.
    matrix_lr: Muon's (weight matrices), or "auto".
    weight_decay: Muon's, decoupled.
    warmup: steps.
    decay: the last share of a run's FLOPs up to a rung, in which the rate falls as 1 - sqrt; before
        it, the rate is a function of the step.
    grad_clip: on the global gradient norm of AdamW's parameters; 0 turns it off.
    precision: of activations and large products; weights, routers, the loss and the optimizers are
        in float32 always. "auto" is settled before a study begins, once for all of its runs.
    """

    batch_size: int = 8
    lr: Rate = AUTO
    matrix_lr: Rate = AUTO
    weight_decay: float = 0.0
    warmup: int = 20
    decay: float = 0.3
    grad_clip: float = 1.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size, 1, TOKENS)
        for name in ("lr", "matrix_lr"):
            value = getattr(self, name)
            if isinstance(value, str):
                require(value == AUTO, f"{name} must be above 0, or {AUTO}: got {shown(value)}")
            else:
                real(name, value, above=0)
        for name in ("weight_decay", "decay", "grad_clip"):
            real(name, getattr(self, name), least=0)
        require(
            is_whole(self.warmup, 0) and self.warmup <= TOKENS,
            f"recipe.warmup is a whole number of steps: got {shown(self.warmup)}; "
            "versions before 0003 took a share of the FLOPs",
        )
        require(
            self.decay <= 1,
            f"recipe.decay is a share of the FLOPs up to a rung, at most 1: got {self.decay:g}",
        )
        known_word("recipe.precision", self.precision, get_args(Precision), "value")

    def rates(self, spec: FFNSpec, backbone: Backbone, flops: float) -> Rates:
        """The rates as given, and the rule's where they are "auto".

        flops: model FLOPs of a whole run.
        """
        ruled = self.ruled(spec, backbone, flops)
        return Rates(
            ruled.matrix_lr if self.matrix_lr == AUTO else self.matrix_lr,
            ruled.lr if self.lr == AUTO else self.lr,
        )

    def ruled(self, spec: FFNSpec, backbone: Backbone, flops: float) -> Rates:
        """The rates of `auto`: the rule's, times the method's constant as far as the model has it.

        A model of which half of the layers have the design has the constant's square root.
        """
        if backbone.base is not None:
            factor = CUT_SHARE
        else:
            layers = placed(spec.placement, backbone.n_layers)
            factor = spec.selection.rate_factor ** (sum(layers) / len(layers))
        return Rates(*(factor * rate for rate in rates(self.shape(spec, backbone, flops))))

    def shape(self, spec: FFNSpec, backbone: Backbone, flops: float) -> Shape:
        """What the rule goes by."""
        tokens = flops / model_cost(spec, backbone).training_flops
        batch_tokens = self.batch_size * backbone.seq_len
        return Shape(backbone.d_model, backbone.n_layers, tokens, batch_tokens)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        return section(cls, "recipe", data)


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """Bring one run (a spec and a seed) to a rung and measure it there.

    evaluation, attempt: the store's id of the evaluation, and the fencing token of its lease.
    study, number, rung: the study's uid, the trial's number in it, and the rung.
    corpus_dir: a prepared corpus (workers.corpus).
    until_flops: the rung's level: model FLOPs (2 a multiply-add; evaluation not counted) that the
        run may spend up to its end, from its first step and without the branches of lower rungs.
    run_flops: the top rung's level, for which "auto" learning rates are; 0 for `until_flops`.
    start_flops: where the rung below left the trunk, in the same count: FLOPs that are paid for.
    eval_tokens: validation tokens that the result is measured on.
    curve_flops: model FLOPs between two points of the curve; 0 for a fortieth of `until_flops`.
    checkpoint_dir: new folder for the checkpoint; empty writes none.
    state_dir: where the run keeps its states, a folder or an fsspec URL, so that another worker
        can go on when this one is lost, and the next rung where this one's branch left the trunk;
        empty keeps none.
    keep_trunk: whether the trunk's state must be kept where the branch leaves it.
    device: torch device string.
    threads: torch threads on the CPU.
    """

    evaluation: int
    spec: FFNSpec
    backbone: Backbone
    recipe: Recipe
    corpus_dir: str
    until_flops: float
    run_flops: float = 0.0
    attempt: int = 1
    study: str = ""
    number: int = 0
    rung: int = 0
    start_flops: float = 0.0
    seed: int = 0
    eval_tokens: int = 65_536
    curve_flops: float = 0.0
    checkpoint_dir: str = ""
    state_dir: str = ""
    keep_trunk: bool = False
    device: str = "cpu"
    threads: int = 1

    @property
    def rates(self) -> Rates:
        """The learning rates, the same at every rung of a run."""
        return self.recipe.rates(self.spec, self.backbone, self.run_flops or self.until_flops)

    def identity(self) -> dict[str, Any]:
        """What decides the run, at every rung, and whose it is: plain data for states."""
        recipe = self.recipe.to_dict()
        if self.recipe.precision == "float32":
            del recipe["precision"]  # as in states from before there was another
        return {
            "study": self.study,
            "trial": self.number,
            "spec": self.spec.to_dict(),
            "backbone": self.backbone.to_dict(),
            "recipe": recipe | self.rates._asdict(),
            "seed": self.seed,
            "corpus": os.path.basename(self.corpus_dir.rstrip("/")),  # named by its content
        }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One point of a run's curve, of the evaluation that is under way.

    step, steps: of the run, and how many it will have at the rung.
    flops: model FLOPs of the run so far, lower rungs' branches left out.
    loss: training loss in nats a token, the mean since the last point.
    seconds: since the evaluation began.
    """

    evaluation: int
    attempt: int = 1
    step: int
    steps: int
    flops: float
    loss: float
    seconds: float


Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """What a worker said while it was at an evaluation, or the driver of it.

    number: of the line in its attempt: 1, 2... are the worker's, 0 is the driver's, which says why
        there is another attempt. With evaluation and attempt it names the line.
    at: an aware time, by the clock of who said it.
    text: as `search_space.log_text` keeps it; of an exception several lines.
    """

    evaluation: int
    attempt: int = 1
    number: int
    at: datetime
    level: Level
    text: str


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """An evaluation's worker died or hung. It has not ended: another worker may take it up.

    error: what happened to the worker, in one line.
    status: the evaluation's, if none does.
    """

    evaluation: int
    error: str
    status: Status = Status.FAILED


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """How an evaluation ended; the measures are None unless it finished.

    A worker's STOPPED says that its machine can do none, whatever the design.

    bits_per_byte, bits_per_byte_se: on the validation split, and its standard error over sequences.
    loss: nats a token.
    windows: nats of each validation sequence, in their fixed order.
    steps, tokens: of the run up to the rung.
    flops: model FLOPs that this evaluation spent beyond `start_flops`.
    optimizer_flops: the optimizer's beside them.
    trunk_flops: where the branch left the trunk, in the run's model FLOPs.
    active_flops: forward FLOPs a token in inference, with the measured activity.
    activity: share of active experts by layer.
    stats: further measures by name.
    checkpoint: the checkpoint's folder in the study's, or "".
    checkpoint_digest: SHA-256 of its manifest, which has those of its files.
    backend: kernels and device that were used.
    error: one line when the evaluation did not finish.
    """

    evaluation: int
    status: Status
    attempt: int = 1
    error: str = ""
    bits_per_byte: float | None = None
    bits_per_byte_se: float | None = None
    loss: float | None = None
    windows: list[float] = field(default_factory=list)
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    optimizer_flops: float = 0.0
    trunk_flops: float = 0.0
    active_flops: float | None = None
    activity: list[float] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    checkpoint: str = ""
    checkpoint_digest: str = ""
    backend: str = ""
