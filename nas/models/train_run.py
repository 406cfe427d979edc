"""One stretch of a training: from its weights or a kept state to the model that is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.models.order import Order
from nas.models.reopen import reopened
from nas.models.trackers import Tracking
from nas.models.train_output import write_model
from nas.models.training_folder import REQUEST, RESULT, TrainingFolder, TrainingLog
from nas.process import interrupts
from search_space.contract import EvalRequest, Progress
from search_space.cost import model_cost
from search_space.rates import AUTO, outside

if TYPE_CHECKING:
    from nas.models.directory import ModelDirectory
    from workers.corpus import Corpus
    from workers.model import LanguageModel
    from workers.training.continued import Continued
    from workers.training.loop import Trained, Training
    from workers.training.measure import Quality
    from workers.training.ranks import Ranks


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


class Run:
    """One stretch of a training, in this process."""

    def __init__(
        self,
        order: Order,
        source: ModelDirectory,
        request: EvalRequest,
        corpus: Corpus,
        folder: TrainingFolder,
        ranks: Ranks,
        note: Note,
        listen: Listen,
    ) -> None:
        self.ranks = ranks
        self.order, self.source, self.corpus, self.folder = order, source, corpus, folder
        self.note, self.listen, self.last_loss = note, listen, 0.0
        self.continued = self._load(request)
        self.request = self.continued.request
        self.began, self.first = time.monotonic(), 0

    def _load(self, request: EvalRequest) -> Continued:
        from workers.training.continued import Continued, Going, failing

        self.note("reading the weights")
        order, source = self.order, self.source
        going = Going(micro_batch=order.micro_batch, keep_seconds=order.keep_seconds)
        with interrupts.breakable(), failing(request):
            model = reopened(source)
            return Continued(model, request, self.corpus, going, self._report, self.ranks)

    def result(self) -> dict[str, Any]:
        """Train to the end, measure, and write the model."""
        self._begin()
        self.first = self.continued.take_up()
        self.before = self.continued.training.meter.spent
        if self.first:
            self.note(f"going on from step {self.first}")
        if not self.ranks.first:
            return self._train()
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
        if self.ranks.first:
            self.folder.write(REQUEST, facts)
        self.ranks.meet()

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
        self.note("measuring")
        with interrupts.breakable():
            quality, active_flops = self.continued.quality(), self.continued.active_flops()
            model = self.continued.whole_model()
            result: dict[str, Any] = {}
            if self.ranks.first:
                result = self._record(trained, quality) | {"active_flops": active_flops}
                self._write(model, result)
        self.ranks.meet()
        return result

    def _record(self, trained: Trained, quality: Quality) -> dict[str, Any]:
        """What came of the training, as plain data."""
        assert self.folder.request is not None
        before, before_error = self.folder.request["before"]
        seconds = self.continued.training.visit.seconds
        return {
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
        }

    def _write(self, model: LanguageModel, result: dict[str, Any]) -> None:
        """Write the model, then that the training is done; the decay's states are over."""
        with self.folder.new_model() as draft:
            self.note("writing the model")
            write_model(draft, model, self.source, result, self._facts(), self.order.verify)
            result["files"] = sorted(path.name for path in draft.iterdir())
        self.folder.write(RESULT, result)
        self.continued.forget_branch()

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
        loss = self.last_loss if curve.losses.known is None else curve.losses.known
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
        if not self.ranks.first:
            return
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
