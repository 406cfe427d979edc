"""Training an exported model on, with the loop of studies: from its weights, or a kept state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from search_space.contract import EvalRequest, Progress
from search_space.cost import model_cost
from search_space.errors import InputError, WorkFailed
from workers.corpus import Corpus
from workers.evaluate import activity_by_layer
from workers.exported import is_untrained
from workers.kernels.dispatch import chosen_products
from workers.model import LanguageModel
from workers.training.keeping import States, discard_branch
from workers.training.loop import BatchStep, Trained, Training
from workers.training.losses import Diverged
from workers.training.measure import EVAL_BATCH, Quality, Windows, measure_routing
from workers.training.parts import InParts
from workers.training.ranks import ALONE, InRanks, Ranks, rest, shard, whole_tensors, without_values

log = logging.getLogger(__name__)
Watch = Callable[[Training], bool]  # after each step; whether to stop here


class Stopped(Exception):
    """Training was asked to stop, and has a state of where it stands."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """How a training is done here, which decides nothing of its result but rounding.

    micro_batch: sequences that are read at once; 0 for a whole batch.
    keep_seconds: between two states.
    """

    micro_batch: int = 0
    keep_seconds: float = 60.0


class Continued:
    """A model on its way to the request's FLOPs; states lie in the request's `state_dir`.

    model: with the weights that the training starts from, on the CPU.
    report: takes the points of the curve.
    ranks: the processes that train together; each calls all of this.
    Raises InputError where the request's precision or FLOPs are too little for it.
    """

    def __init__(
        self,
        model: LanguageModel,
        request: EvalRequest,
        corpus: Corpus,
        going: Going,
        report: Callable[[Progress], None],
        ranks: Ranks = ALONE,
    ) -> None:
        if is_untrained(model):  # what a run of a study hears at its beginning
            model.set_token_counts(torch.from_numpy(corpus.token_counts))
            model.begin_run(request.recipe.warmup)
        self.model, self.corpus, self.going = model.to(request.device), corpus, going
        self.ranks = ranks
        step: BatchStep | None = InParts(going.micro_batch) if going.micro_batch else None
        if ranks.count > 1:
            ranks.check_batch(request.recipe.batch_size)
            self.shell = without_values(self.model)
            shard(self.model, ranks, request.device)
            step = InRanks(ranks, going.micro_batch)
        self.training = Training(self.model, request, corpus, report, batch_step=step)
        self.request = self.training.request
        self.states = States(self.training, going.keep_seconds, writes=ranks.first)

    def take_up(self) -> int:
        """Go on from the newest state of the same training; returns the steps done."""
        state = self.states.newest(self.training)
        if state is not None:
            self.training.take_up(state)
        return self.training.steps

    def run(self, watch: Watch) -> Trained:
        """Train to the request's FLOPs, keeping a state from time to time and at the end.

        Raises Stopped, with a state kept, when `watch` says so; WorkFailed where the loss is no
        number any more or the memory does not suffice.
        """

        def after_step(training: Training) -> None:
            mine = [float(watch(training)), float(self.states.due())]
            stop, due = self.ranks.largest(mine)  # all do the same
            if stop or due:
                self.states.keep(training)
            if stop:
                raise Stopped

        with failing(self.request), chosen_products(self.request.device):
            trained = self.training.run(after_step, self.states.at_branch)
        self.states.keep(self.training)
        return trained

    def quality(self) -> Quality:
        """Bits per byte on the validation windows, as the model stands."""
        request = self.request
        windows = Windows.of(
            self.corpus, "validation", request.eval_tokens, request.backbone.seq_len
        )
        batch = min(EVAL_BATCH, self.going.micro_batch or request.recipe.batch_size)
        self.model.eval()
        with failing(request), chosen_products(request.device):
            found = windows.quality(
                lambda ids_NL: self.model.logits(self.model(ids_NL).hidden_NLD),
                request.device,
                batch,
            )
        rest(self.model)
        return found

    def active_flops(self) -> float:
        """A token, in inference, with the activity that is measured on the validation split."""
        request = self.request
        routing: dict[str, dict[str, Any]] = measure_routing(
            self.model, self.corpus, request.backbone.seq_len, request.device
        )
        rest(self.model)
        shares = activity_by_layer(routing).values()
        return model_cost(request.spec, request.backbone, sum(shares) / len(shares)).active_flops

    def whole_model(self) -> LanguageModel:
        """The model with all of its weights, on the CPU; of several processes the first has it."""
        if self.ranks.count == 1:
            return self.model.cpu()
        tensors = whole_tensors(self.model)
        if not self.ranks.first:
            return self.model
        self.shell.load_state_dict(tensors, assign=True)
        return self.shell

    def forget_branch(self) -> None:
        """Remove the states of the decay, once its result is kept; the trunk's stay."""
        discard_branch(self.request.state_dir)


@contextmanager
def failing(request: EvalRequest) -> Iterator[None]:
    """What can go wrong in the body is WorkFailed, in one line with the way out."""
    try:
        yield
    except Diverged as error:
        rates = request.rates
        raise WorkFailed(
            f"training diverged: {error}; lower the rates, which were matrix_lr "
            f"{rates.matrix_lr:.3g} and lr {rates.lr:.3g}, with --recipe, into another --to"
        ) from None
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_large(request, error) from None
    except InputError:
        raise
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch's
            raise _too_large(request, error) from None
        raise


def _too_large(request: EvalRequest, error: BaseException) -> WorkFailed:
    return WorkFailed(
        f"the memory of {request.device} does not suffice ({error}); read fewer sequences at once "
        "with --micro-batch"
    )
