"""What must hold before a study is gone on with, stopped from outside, or given more FLOPs."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from pathlib import Path

from nas.config import StudyConfig, rounded_up
from nas.models.checkpoints import folder_name, run_folder, runs_dir
from nas.process import interrupts
from nas.process.holder import is_gone, new_owner, words
from nas.running.ending import stop_left
from nas.running.preflight import check_study
from nas.search.decisions import Done
from nas.search.scheduler import Board
from nas.store import CorpusFacts, EvaluationRecord, Hold, Store, StudyHeld, StudyRecord, StudyState
from nas.store.holds import STOP, held_by
from search_space.checks import real, whole
from search_space.contract import TRAINING, Status
from search_space.errors import BrokenPlugIn, InputError, WorkFailed, require

STOP_SECONDS = 120.0  # that a driver may take to stop
_POLL_SECONDS = 0.2


def resumable(study: StudyRecord, store: Store) -> StudyConfig:
    """The study's configuration; raise InputError when there is nothing to go on with."""
    config = stored_config(study)
    require(
        study.state is not StudyState.FINISHED,
        f"study {study.name!r} is finished; give it more with: nas extend {study.name} --flops F",
    )
    check_free(study, store)
    return config


def check_free(study: StudyRecord, store: Store) -> None:
    """Raise InputError while a driver that may live holds the study."""
    left = store.lease_left(study.id)
    if study.owner and not is_gone(study.owner) and left > 0:
        raise held_by(study.name, words(study.owner), study.owner_since, left)


def take(study: StudyRecord, store: Store) -> Hold:
    """Hold the study for this process; a holder that is known to be gone is not waited for."""
    dead = study.owner if is_gone(study.owner) else ""
    try:
        return store.hold_study(study.id, new_owner(), dead=dead)
    except StudyHeld:
        check_free(store.study(study.name), store)  # the same, of the holder in words
        raise


def is_of_this_version(study: StudyRecord) -> bool:
    """Whether this version trains as the study's was."""
    return study.facts.training == TRAINING


def stored_config(study: StudyRecord) -> StudyConfig:
    """The configuration that the study was launched with; InputError for another version's, and
    BrokenPlugIn where an installed method keeps any from being read."""
    if not is_of_this_version(study):
        raise InputError(
            f"study {study.name!r} was trained by another version, whose results cannot be "
            f"compared with this one's (its training is of form {study.facts.training or 1}, this "
            f"one's of form {TRAINING}); launch it again under a new name"
        )
    try:
        config = StudyConfig.from_dict(study.config)
    except BrokenPlugIn:
        raise
    except InputError as error:
        raise InputError(
            f"study {study.name!r} was stored by another version: {error}; launch it again under a "
            "new name"
        ) from None
    # It was settled before a study is stored; those from before there was a choice have float32.
    return config if config.recipe.precision != "auto" else config.with_precision("float32")


def check_place(study: StudyRecord, store: Store, folder: Path) -> None:
    """Raise InputError when a file database's study would write into a folder beside another's.

    A copy without its `nas-runs` still finds the folder that the original works in: two studies
    would discard each other's states.
    """
    own = runs_dir(store) / folder_name(study)
    require(
        store.file is None or folder == own,
        f"study {study.name!r} has its files in {folder}, and they must be beside its database: "
        f"move that folder to {own}, or copy it there if that study goes on too",
    )


def check_states(study: StudyRecord, store: Store, config: StudyConfig, folder: Path) -> None:
    """Raise InputError when states that the study goes on from are gone.

    Those at a URL are not looked for: the workers reach it, this machine need not.
    """
    if config.workers.state_url:
        return
    needed = _needed(store.evaluations(study.id), config.budget.rungs - 1)
    gone = [run for run in needed if not os.path.isdir(folder / run_folder(*run))]
    require(
        not gone,
        f"study {study.name!r} goes on from its trainings' states, and {len(gone)} of "
        f"{len(needed)} are gone: there is no {folder / run_folder(*gone[0]) if gone else ''}; "
        "put the study's own folder back, or launch the study again",
    )


def _needed(evaluations: list[EvaluationRecord], top: int) -> list[tuple[int, int]]:
    """The runs, as (trial, seed), that were measured at a rung and may go on from its trunk."""
    last: dict[tuple[int, int], EvaluationRecord] = {}
    for each in sorted(evaluations, key=lambda each: each.rung):
        last[each.trial, each.seed] = each
    return [
        run
        for run, each in last.items()
        if (each.status is Status.FINISHED and each.rung < top)
        or (not each.status.final and each.start_flops > 0)
    ]


def check_corpus(study: StudyRecord, found: CorpusFacts) -> None:
    """Raise InputError unless the corpus is the one that the study began with."""
    before = study.facts.corpus.hash
    require(
        found.hash == before,
        f"study {study.name!r} began with another text: the corpus has changed since (its content "
        f"was {before}, it is {found.hash}); put the text back, or launch the study again",
    )


def stop_study(study: StudyRecord, store: Store) -> StudyRecord:
    """Have a study stopped, by its driver or in place of one that is gone; return its record.

    Raises InputError when it does not run, WorkFailed when its driver does not stop in time.
    """
    require(
        study.state is StudyState.RUNNING,
        f"only a running study can be stopped: {study.name!r} is {study.state.value}",
    )
    gone = not study.owner or is_gone(study.owner) or store.lease_left(study.id) <= 0
    if gone or not store.ask(study.id, STOP):
        _stop_for(study, store)
        return store.study(study.name)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        left, found = store.lease_left(study.id), store.study(study.name)  # in this order
        if found.state is not StudyState.RUNNING:
            return found
        if left <= 0:  # it died before it could hear
            _stop_for(found, store)
            return store.study(study.name)
        interrupts.check()
        time.sleep(_POLL_SECONDS)
    raise WorkFailed(
        f"study {study.name} did not stop within {STOP_SECONDS:.0f} s: {words(study.owner)} holds "
        "it and was asked to; end that process, then run this again"
    )


def _stop_for(study: StudyRecord, store: Store) -> None:
    """Record as stopped what a driver that is gone left."""
    hold = take(study, store)
    stop_left(store, hold)
    store.release(hold, StudyState.STOPPED)


def extend_study(
    study: StudyRecord, store: Store, flops: float, trials: int | None = None
) -> StudyRecord:
    """Give a study `flops` more training FLOPs; it can be resumed then. Returns its record.

    trials: designs that it may try in all; without one they grow as the FLOPs do. Raises InputError
    when it is held, of another version, or the numbers make no sense or pay for nothing.
    """
    config = stored_config(study)
    check_free(study, store)
    real("--flops", flops, above=0)
    total = study.budget_flops + flops
    if trials is not None:
        whole("--trials", trials, 1)
    share = total / study.budget_flops * (1 + 1e-12)  # of which a double's rounding takes no design
    grown = math.floor(config.budget.trials * share)
    most = max(config.budget.trials, grown) if trials is None else trials
    require(
        most >= config.budget.trials,
        f"a study never forgets designs: it may try {config.budget.trials:,} already, got {most:,}",
    )
    budget = dataclasses.replace(config.budget, flops=total, trials=most)
    longer = dataclasses.replace(config, budget=budget)
    check_study(longer)
    _check_pays(longer, flops, study, store)
    hold = take(study, store)
    ended = study.state if study.state is not StudyState.FINISHED else StudyState.STOPPED
    store.extend(hold, longer.to_dict(), total)
    store.release(hold, ended if ended is not StudyState.RUNNING else StudyState.STOPPED)
    return store.study(study.name)


def _check_pays(longer: StudyConfig, flops: float, study: StudyRecord, store: Store) -> None:
    """Raise InputError when the study as extended could do nothing more."""
    board, warm = Board(longer.plan()), {spec.key for _, spec in longer.warm_start_specs()}
    trials = store.trials(study.id, stats=False)
    for trial in trials:
        board.put_trial(trial.number, trial.key in warm, trial.cost)
    for evaluation in store.evaluations(study.id):
        board.put(evaluation)
    left = len(warm - {trial.key for trial in trials})
    # A whole design's, and so many that the designs grow by one.
    enough = max(longer.least_flops, study.budget_flops / study.config["budget"]["trials"])
    require(
        not isinstance(board.decide(warm_left=left), Done),
        f"an extension must pay for more: {flops:g} FLOPs, with {longer.budget.trials:,} designs "
        f"in all, begin no design of study {study.name!r}, promote no run and repeat none; give "
        f"--flops of at least {rounded_up(enough):g}, and leave --trials out",
    )
