"""`nas train`: an exported model trained on, as a study trains, and written as a model again."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from nas.models.directory import ModelDirectory
from nas.models.order import Order
from nas.models.room import FLOAT, check_disk
from nas.models.trackers import check_installed
from nas.models.train_run import Listen, Note, Run
from nas.models.training_folder import TrainingFolder
from nas.process import interrupts
from search_space.checks import real
from search_space.contract import EvalRequest
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError, require, shown
from search_space.places import corpora_dir
from search_space.rates import AUTO

if TYPE_CHECKING:
    from workers.corpus import Corpus
    from workers.training.ranks import Ranks

POINTS = 200  # of the curve, in log.jsonl
TRAINED = 4  # parameters' worth of memory: weights, gradients, and a moment or two
STATES = 9  # parameters' worth of states: weights and two moments, three times (nas.running)


def train_model(order: Order, note: Note, listen: Listen) -> dict[str, Any]:
    """Train to the order's FLOPs and write the model; returns what came of it, as plain data.

    A training that was stopped or killed goes on, and one that is done with fewer FLOPs goes on
    from its trunk. note: takes a line of text. listen: is told of each step.
    Raises InputError, and leaves nothing behind, for what cannot be trained; WorkFailed where the
    training or its writing fails; KeyboardInterrupt once a state is kept.
    """
    from workers.device import present_device
    from workers.training.ranks import joined

    check_installed(order.trackers)
    with joined(present_device(order.device)) as (ranks, device):
        if not ranks.first:
            note, listen = _silent, _silent
        return _train_among(dataclasses.replace(order, device=device), ranks, note, listen)


def _silent(_: object) -> None:
    """The first process speaks for all."""


def _train_among(order: Order, ranks: Ranks, note: Note, listen: Listen) -> dict[str, Any]:
    """As `train_model`; of several processes each calls it, and the first one has the result."""
    folder = TrainingFolder(order.out)
    with interrupts.breakable():
        source = ModelDirectory.open(order.source)
        _check_flops(order, source)
        note("preparing the corpus")
        corpus = _corpus(order, source, ranks)
        request = _request(order, source, corpus, folder)
        _check_same(folder, request, order)
        if folder.result is not None and folder.result["until_flops"] == order.flops:
            note(f"{order.out} is trained to {order.flops:.4g} FLOPs already; more continue it")
            return folder.result
        _check_room(order, source)
        ranks.meet()  # all have looked
    with folder.held() if ranks.first else nullcontext():
        return Run(order, source, request, corpus, folder, ranks, note, listen).result()


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


def _corpus(order: Order, source: ModelDirectory, ranks: Ranks) -> Corpus:
    from workers.corpus import prepare

    spec = dataclasses.replace(order.corpus, tokenizer=str(source.folder.absolute()))
    backbone = source.backbone
    if ranks.first:  # the others find what it has made
        prepare(spec, backbone.vocab_size, backbone.seq_len, corpora_dir())
    ranks.meet()
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

    from workers.precision import chosen

    device = order.device
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
