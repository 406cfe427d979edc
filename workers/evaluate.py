"""EvalRequest -> EvalResult: whatever happens to an evaluation becomes a Status here."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError

from search_space.contract import EvalRequest, EvalResult, Progress, Status
from search_space.cost import model_cost
from search_space.errors import BrokenPlugIn, InputError, WorkFailed
from workers.checkpoint import save_checkpoint
from workers.corpus import Corpus
from workers.device import resolve_device
from workers.kernels.dispatch import chosen_products, describe
from workers.model import LanguageModel
from workers.precision import float32_products, settled
from workers.stepcheck import trusted
from workers.training.copying import copying
from workers.training.keeping import States, discard_branch, discard_states
from workers.training.loop import Trained, Training, build_proxy
from workers.training.losses import Diverged
from workers.training.measure import evaluate_quality, measure_routing

log = logging.getLogger(__name__)


def evaluate(request: EvalRequest, report: Callable[[Progress], None]) -> EvalResult:
    """Train a run to its rung and measure it; never raises for what a design can do wrong.

    Divergence, lack of memory and bad input end as their Status with one line of error; any
    other exception is FAILED, logged with its traceback on the worker. What fails on this machine
    whatever the design is STOPPED: it can be taken up again.
    """
    began = time.monotonic()
    reached = [request.start_flops]

    def note(training: Training) -> None:
        reached[0] = training.meter.spent

    def ending(status: Status, error: str) -> EvalResult:
        return EvalResult(
            evaluation=request.evaluation,
            attempt=request.attempt,
            status=status,
            error=" ".join(error.split())[:500],
            flops=max(0.0, reached[0] - request.start_flops),
            seconds=time.monotonic() - began,
            backend=backend_name(request),
        )

    request = dataclasses.replace(request, device=resolve_device(request.device))
    try:
        if request.device == "cpu":
            torch.set_num_threads(request.threads)
        request = settled(request)
        with chosen_products(request.device), trusted(request.device):
            return _evaluate(request, report, note, began)
    except Diverged as error:
        log.warning("trial %d diverged: %s", request.number, error)
        return ending(Status.DIVERGED, str(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        log.warning("trial %d ran out of memory: %s", request.number, error)
        return ending(Status.OUT_OF_MEMORY, f"{type(error).__name__}: {error}")
    except BrokenPlugIn as error:
        log.error("trial %d cannot be trained here: %s", request.number, error)
        return ending(Status.STOPPED, str(error))
    except (InputError, WorkFailed) as error:
        log.error("trial %d failed: %s", request.number, error)
        return ending(Status.FAILED, str(error))
    except Exception as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's
            log.warning("trial %d ran out of memory: %s", request.number, error)
            return ending(Status.OUT_OF_MEMORY, str(error))
        log.exception("trial %d failed", request.number)
        return ending(Status.FAILED, f"{type(error).__name__}: {error}")
    finally:
        discard_branch(request.state_dir)  # no other worker takes it up


def _evaluate(
    request: EvalRequest,
    report: Callable[[Progress], None],
    note: Callable[[Training], None],
    began: float,
) -> EvalResult:
    _say_how(request)
    corpus = Corpus.open(request.corpus_dir)
    model = build_proxy(request, corpus)
    training = Training(model, request, corpus, report)
    trained = _train(training, note)
    seq_len = request.backbone.seq_len
    quality = evaluate_quality(model, corpus, request.eval_tokens, seq_len, request.device)
    log.info(
        "measured on %d windows: %.4f bits per byte, standard error %.4f",
        len(quality.windows), quality.bits_per_byte, quality.standard_error,
    )  # fmt: skip
    routing = measure_routing(model, corpus, seq_len, request.device)
    copies = copying(model, corpus, seq_len, request.device)
    activity = activity_by_layer(routing)
    mean_activity = sum(activity.values()) / len(activity)
    checkpoint, digest, lost = _keep(model, request, corpus)
    return EvalResult(
        evaluation=request.evaluation,
        attempt=request.attempt,
        status=Status.FINISHED,
        bits_per_byte=quality.bits_per_byte,
        bits_per_byte_se=quality.standard_error,
        loss=quality.loss,
        windows=quality.windows,
        steps=trained.steps,
        tokens=trained.tokens,
        flops=trained.flops - request.start_flops,
        optimizer_flops=trained.optimizer_flops,
        trunk_flops=trained.trunk_flops,
        active_flops=model_cost(request.spec, request.backbone, mean_activity).active_flops,
        activity=[activity.get(layer, 1.0) for layer in range(request.backbone.n_layers)],
        stats={"routing": routing, "rates": request.rates._asdict(), "copying": copies} | lost,
        seconds=time.monotonic() - min(began, training.visit.began),
        checkpoint=checkpoint,
        checkpoint_digest=digest,
        backend=backend_name(request),
    )


def _say_how(request: EvalRequest) -> None:
    """Log what is asked for, and with what it is done."""
    log.info(
        "trial %d with seed %d: to rung %d at %.4g training FLOPs; attempt %d",
        request.number, request.seed, request.rung, request.until_flops, request.attempt,
    )  # fmt: skip
    gpu = torch.device(request.device).type == "cuda"
    name = f" on {torch.cuda.get_device_name(request.device)}" if gpu else ""
    log.info("trains in %s%s: %s", request.recipe.precision, name, backend_name(request))


def _train(training: Training, note: Callable[[Training], None]) -> Trained:
    """From the newest state to the rung; `note` sees the training as it stands."""
    states = States(training)
    states.take_up(training)
    note(training)

    def after_step(training: Training) -> None:
        note(training)
        states.after_step(training)

    trained = training.run(after_step, states.at_branch)
    log.info(
        "trained to step %d, %d tokens, in %.1f s of this evaluation",
        trained.steps, trained.tokens, training.visit.seconds,
    )  # fmt: skip
    return trained


def _keep(
    model: LanguageModel, request: EvalRequest, corpus: Corpus
) -> tuple[str, str, dict[str, str]]:
    """The checkpoint, its digest, and {"checkpoint_error": why} where it could not be written.

    What was trained and measured is kept all the same. States make room for the weights: first the
    branch's, which is over, then the trunk's, which a promotion can train again.
    """
    try:
        for make_room in (discard_branch, discard_states):
            try:
                return *save_checkpoint(model, request, corpus), {}
            except FileExistsError:
                raise
            except (OSError, SafetensorError):
                make_room(request.state_dir)
        return *save_checkpoint(model, request, corpus), {}
    except (OSError, SafetensorError) as error:
        log.exception("trial %d: its checkpoint could not be written", request.number)
        reason = getattr(error, "strerror", None) or str(error)
        text = " ".join(f"{request.checkpoint_dir}: {reason}".split())
        return "", "", {"checkpoint_error": text[:500]}


def activity_by_layer(routing: dict[str, dict[str, Any]]) -> dict[int, float]:
    """Mean active share of the sub-layers of each transformer layer that has the design.

    A layer without it has the reference FFN, all of which is active.
    """
    active: dict[int, list[float]] = {}
    for name, stats in routing.items():
        layer = next(int(part) for part in name.split(".") if part.isdigit())
        active.setdefault(layer, []).append(stats["active"])
    return {layer: sum(values) / len(values) for layer, values in active.items()}


def backend_name(request: EvalRequest) -> str:
    """Where and with what the evaluation ran, for the record."""
    place = f"torch {torch.__version__} {request.device} x{request.threads}"
    precision = request.recipe.precision
    narrow = f" {precision}" if precision == "bfloat16" else ""
    products = float32_products(request.device)
    narrow += f", float32 products {products}" if products else ""
    return f"{place}{narrow}, kernels: {describe(request.device)}"
