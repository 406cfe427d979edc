"""`nas train`: an exported model trained on, as a study trains, and written as a model again."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.models.directory import ModelDirectory
from nas.models.room import FLOAT, check_disk
from nas.models.trackers import Tracking, check_installed
from nas.models.train_output import write_model
from nas.models.training_folder import REQUEST, RESULT, TrainingFolder, TrainingLog
from nas.process import interrupts
from search_space.checks import real
from search_space.contract import EvalRequest, Progress, Recipe
from search_space.corpus import CorpusSpec
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError, require, shown
from search_space.places import corpora_dir
from search_space.rates import AUTO, outside

if TYPE_CHECKING:
    from workers.corpus import Corpus
    from workers.training.continued import Continued
    from workers.training.loop import Training

POINTS = 200  # of the curve, in log.jsonl
STATES = 9  # parameters' worth of states: weights and two moments, three times (nas.running)


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


@dataclass(frozen=True)
class Point:
    """How far a training is.

    flops, until: spent, and to be spent.
    loss: nats a token, the mean of the last steps.
    rate: tokens a second, in this process.
    left: seconds that the rest will take; None while nobody can tell.
    """

    step: int
    flops: float
    until: float
    loss: float
    rate: float
    left: float | None


Listen = Callable[[Point], None]
Note = Callable[[str], None]


def train_model(order: Order, note: Note, listen: Listen) -> dict[str, Any]:
    """Train to the order's FLOPs and write the model; returns what came of it, as plain data.

    A training that was stopped or killed goes on, and one that is done with fewer FLOPs goes on
    from its trunk. note: takes a line of text. listen: is told of each step.
    Raises InputError, and leaves nothing behind, for what cannot be trained; WorkFailed where the
    training or its writing fails; KeyboardInterrupt once a state is kept.
    """
    check_installed(order.trackers)
    folder = TrainingFolder(order.out)
    with interrupts.breakable():
        source = ModelDirectory.open(order.source)
        _check_flops(order, source)
        note("preparing the corpus")
        corpus = _corpus(order, source)
        request = _request(order, source, corpus, folder)
        _check_same(folder, request, order)
        if folder.result is not None and folder.result["until_flops"] == order.flops:
            note(f"{order.out} is trained to {order.flops:.4g} FLOPs already; more continue it")
            return folder.result
        _check_room(order, source)
    with folder.held():
        return _Run(order, source, request, corpus, folder, note, listen).result()


def _check_flops(order: Order, source: ModelDirectory) -> None:
    real("--flops", order.flops, above=0)
    batch = order.recipe.batch_size
    price = step_flops(source.spec, source.backbone, batch)
    require(
        order.flops * (1 + 1e-9) >= price,
        f"--flops pays for no step: one of {batch} sequences costs {price:.3g} FLOPs, got "
        f"{order.flops:.3g}; raise it",
    )
    require(
        order.micro_batch <= batch,
        f"--micro-batch is a part of a batch of {batch} sequences: got {order.micro_batch}; lower "
        "it, or raise batch_size in --recipe",
    )


def _corpus(order: Order, source: ModelDirectory) -> Corpus:
    from workers.corpus import prepare

    spec = dataclasses.replace(order.corpus, tokenizer=str(source.folder.absolute()))
    backbone = source.backbone
    return prepare(spec, backbone.vocab_size, backbone.seq_len, corpora_dir())


def _check_room(order: Order, source: ModelDirectory) -> None:
    weights = FLOAT * model_cost(source.spec, source.backbone).total_params
    check_disk(
        order.out, (STATES + 1) * weights, f"the states of {source.spec.label} and its weights"
    )


def _request(
    order: Order, source: ModelDirectory, corpus: Corpus, folder: TrainingFolder
) -> EvalRequest:
    """The training as workers take it; of one that goes on, with the rates that it began with."""
    import torch

    from workers.device import present_device
    from workers.precision import chosen

    device = present_device(order.device)
    if order.threads and device == "cpu":
        torch.set_num_threads(order.threads)
    threads, recipe, begun = torch.get_num_threads(), order.recipe, folder.request
    precision = begun["precision"] if begun and recipe.precision == AUTO else recipe.precision
    recipe = dataclasses.replace(recipe, precision=chosen(precision, device, threads))
    return EvalRequest(
        evaluation=0,
        spec=source.spec,
        backbone=source.backbone,
        recipe=recipe,
        corpus_dir=str(corpus.dir),
        until_flops=order.flops,
        run_flops=begun["run_flops"] if begun else order.flops,
        study=source.digest(),
        seed=order.seed,
        eval_tokens=order.eval_tokens,
        curve_flops=order.flops / POINTS,
        state_dir=str(folder.place),
        keep_trunk=True,
        device=device,
        threads=threads,
    )


_WORDS = {
    "study": "starts from other weights, another design or tokenizer",
    "corpus": "reads another text",
}


def _check_same(folder: TrainingFolder, request: EvalRequest, order: Order) -> None:
    """Raise InputError where the folder holds another training than the one asked for."""
    begun = folder.request
    if begun is None:
        return
    # As JSON has it: a tuple and a list are one.
    mine, theirs = json.loads(json.dumps(request.identity())), begun["identity"]
    for name in ("study", "corpus", "seed", "recipe"):
        if mine[name] == theirs.get(name):
            continue
        told = _WORDS.get(name) or f"has {_differing(name, mine[name], theirs.get(name))}"
        raise InputError(f"{order.out} holds another training, which {told}; choose another --to")
    until = begun["until_flops"]
    if folder.done:
        require(
            order.flops >= until,
            f"{order.out} is trained to {until:.4g} FLOPs: got --flops {order.flops:.4g}; give "
            "more, or choose another --to",
        )
        return
    require(
        order.flops == until,
        f"{order.out} is on its way to {until:.4g} FLOPs: got --flops {order.flops:.4g}; finish it "
        f"with --flops {until!r}, and more continue it",
    )


def _differing(name: str, mine: Any, theirs: Any) -> str:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        name = next(key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key))
        mine, theirs = mine.get(name), theirs.get(name)
    return f"{name} {shown(theirs)} and not {shown(mine)}"


class _Run:
    """One stretch of a training, in this process."""

    def __init__(
        self,
        order: Order,
        source: ModelDirectory,
        request: EvalRequest,
        corpus: Corpus,
        folder: TrainingFolder,
        note: Note,
        listen: Listen,
    ) -> None:
        self.order, self.source, self.corpus, self.folder = order, source, corpus, folder
        self.note, self.listen, self.last_loss = note, listen, 0.0
        self.continued = self._load(request)
        self.request = self.continued.request
        self.began, self.first = time.monotonic(), 0

    def _load(self, request: EvalRequest) -> Continued:
        from workers.exported import load_proxy
        from workers.training.continued import Continued, Going, failing

        self.note("reading the weights")
        order, source = self.order, self.source
        going = Going(micro_batch=order.micro_batch, keep_seconds=order.keep_seconds)
        with interrupts.breakable(), failing(request):
            model = load_proxy(source.weights, source.spec, source.backbone)
            return Continued(model, request, self.corpus, going, self._report)

    def result(self) -> dict[str, Any]:
        """Train to the end, measure, and write the model."""
        self._begin()
        self.first = self.continued.take_up()
        self.before = self.continued.training.meter.spent
        if self.first:
            self.note(f"going on from step {self.first}")
        self.log = TrainingLog(self.folder.place, self.first)
        settings = {"design": self.source.spec.label, "seed": self.request.seed}
        settings |= self.request.recipe.to_dict() | self.request.rates._asdict()
        self.tracking = Tracking(
            self.order.trackers, self.order.out.name, self.folder.place, settings
        )
        try:
            return self._train()
        finally:
            self.tracking.end()

    def _begin(self) -> None:
        """Note what decides the training, and what the model is worth before it."""
        begun, request = self.folder.request, self.request
        if begun is None:
            self._warn()
            with interrupts.breakable():
                quality = self.continued.quality()
            before = [quality.bits_per_byte, quality.standard_error]
        else:
            before = begun["before"]
        facts = {
            "identity": request.identity(),
            "precision": request.recipe.precision,
            "run_flops": request.run_flops,
            "until_flops": request.until_flops,
            "before": before,
        }
        self.folder.write(REQUEST, facts)

    def _warn(self) -> None:
        recipe, request = self.request.recipe, self.request
        shape = recipe.shape(request.spec, request.backbone, request.run_flops)
        beyond = ", ".join(outside(shape))
        if AUTO in (recipe.lr, recipe.matrix_lr) and beyond:
            self.note(
                f"warning: the rates {AUTO} go beyond what their rule was fitted on: {beyond}; "
                "compare half and twice of them, or give lr and matrix_lr in --recipe"
            )

    def _train(self) -> dict[str, Any]:
        from workers.training.continued import Stopped

        try:
            trained = self.continued.run(self._watch)
        except Stopped:
            step = self.continued.training.steps
            with suppress(KeyboardInterrupt):  # it takes effect here, and says what is kept
                interrupts.check()
            raise KeyboardInterrupt(
                f"step {step} is kept; the same command goes on from there"
            ) from None
        seconds = self.continued.training.visit.seconds
        self.note("measuring")
        with interrupts.breakable():
            quality = self.continued.quality()
            assert self.folder.request is not None
            before, before_error = self.folder.request["before"]
            result = {
                "model": str(self.order.out),
                "until_flops": self.request.until_flops,
                "bits_per_byte_before": before,
                "bits_per_byte_before_se": before_error,
                "bits_per_byte": quality.bits_per_byte,
                "bits_per_byte_se": quality.standard_error,
                "loss": quality.loss,
                "steps": trained.steps,
                "tokens": trained.tokens,
                "flops": trained.flops,
                "seconds": seconds,
                "tokens_per_second": trained.tokens / max(seconds, 1e-9),
                "parameters": model_cost(self.source.spec, self.source.backbone).total_params,
                "active_flops": self.continued.active_flops(),
            }
            with self.folder.new_model() as draft:
                self.note("writing the model")
                write_model(
                    draft,
                    self.continued.model,
                    self.source,
                    result,
                    self._facts(),
                    self.order.verify,
                )
                result["files"] = sorted(path.name for path in draft.iterdir())
        self.folder.write(RESULT, result)
        self.continued.forget_branch()
        return result

    def _facts(self) -> dict[str, Any]:
        """What the card says of the training beside its result."""
        request, rates = self.request, self.request.rates
        return {
            "corpus": self.corpus.meta["source"],
            "corpus_hash": self.corpus.meta["hash"],
            "seed": request.seed,
            "recipe": request.recipe.to_dict() | rates._asdict(),
        }

    # While it trains.

    def _watch(self, training: Training) -> bool:
        """After a step: tell of it; whether to stop here."""
        curve, elapsed = training.curve, time.monotonic() - self.began
        tokens = (training.steps - self.first) * self._batch_tokens
        gained = training.meter.spent - self.before
        left = (
            elapsed * (self.request.until_flops - training.meter.spent) / gained if gained else None
        )
        loss = curve.loss_sum / curve.losses if curve.losses else self.last_loss
        self.listen(
            Point(
                step=training.steps,
                flops=training.meter.spent,
                until=self.request.until_flops,
                loss=loss,
                rate=tokens / max(elapsed, 1e-9),
                left=left,
            )
        )
        return interrupts.asked()

    def _report(self, progress: Progress) -> None:
        """A point of the curve."""
        training = self.continued.training
        self.last_loss = progress.loss
        optimizers, rates = training.optimizers, self.request.rates
        factor = optimizers.optimizers[0].param_groups[0]["lr"] / optimizers.base[0][0]
        numbers = {
            "loss": progress.loss,
            "flops": progress.flops,
            "tokens": progress.step * self._batch_tokens,
            "matrix_lr": rates.matrix_lr * factor,
            "lr": rates.lr * factor,
            "seconds": progress.seconds,
        }
        self.log.add({"step": progress.step, **numbers})
        self.tracking.add(progress.step, numbers)

    @property
    def _batch_tokens(self) -> int:
        return self.request.recipe.batch_size * self.request.backbone.seq_len
