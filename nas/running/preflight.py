"""What would end a study hours later is refused before anything trains."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path

from nas.config import StudyConfig
from nas.store import Store
from search_space.cost import model_cost
from search_space.errors import InputError, require
from search_space.placement import reference
from search_space.rates import AUTO, outside
from search_space.spec import FFNSpec

MOST_TOKENS = 2.0**53  # of a trial: beyond this a double skips whole numbers
BYTES_PER_PARAMETER = 4  # checkpoints are float32
# Parameters' worth of a running training's states: weights and two moments, in three files each
# (the newest, the one before, and one that is being written).
STATES = 9
# A paused run's: weights and two moments, where its branch left the trunk and once before.
STATES_PAUSED = 6
# A trial's design, result and curve, as SQLite and PostgreSQL keep them, and an empty database.
DATABASE_BYTES_PER_TRIAL, DATABASE_BYTES = 32 * 2**10, 2**20


def check_study(config: StudyConfig) -> None:
    """Raise InputError for a number that the store could not keep exactly."""
    budget = config.budget
    require(
        config.total_flops < 2**53 * budget.trial_flops,
        f"budget.flops {config.total_flops:.3g} is so much that the account could not see one "
        f"trial of trial_flops {budget.trial_flops:.3g}; lower it, or leave it out",
    )
    cheapest = min(model_cost(spec, config.backbone).training_flops for spec in _known(config))
    tokens = budget.trial_flops / cheapest
    require(
        tokens < MOST_TOKENS,
        f"budget.trial_flops {budget.trial_flops:.3g} trains a design on {tokens:.3g} tokens, more "
        f"than the store can count ({MOST_TOKENS:.0e}); lower trial_flops",
    )


def rates_warning(config: StudyConfig) -> str:
    """What to say where the rule of the learning rates is asked outside what it was fitted on, for
    the reference design; "" where it is not."""
    recipe, backbone = config.recipe, config.backbone
    if AUTO not in (recipe.lr, recipe.matrix_lr):
        return ""
    shape = recipe.shape(reference(backbone), backbone, config.budget.trial_flops)
    beyond = ", ".join(outside(shape))
    return beyond and (
        f"warning: recipe.lr {AUTO} goes beyond what its rule was fitted on: {beyond}; compare "
        "half and twice its rates with the dense design, or give lr and matrix_lr"
    )


def check_store(config: StudyConfig, store: Store, runs: Path, begun: Path | None = None) -> None:
    """Raise InputError unless `runs` can be written and has room for the study's checkpoints.

    begun: the study's folder when it is gone on with; what lies there needs no further room.
    """
    folder = check_writable(runs)
    designs = [model_cost(spec, config.backbone).total_params for spec in _known(config)]
    budget, size = config.budget, max(designs) * BYTES_PER_PARAMETER
    # With rungs, few reach the top and leave weights; each of the others leaves its trunk's state.
    at_top = budget.trials / budget.reduction ** (budget.rungs - 1) + len(config.warm_start)
    checkpoints = min(budget.trials, math.ceil(at_top)) * size
    paused = budget.trials if budget.rungs > 1 and not config.workers.state_url else 0
    states = (config.workers.at_once * STATES + paused * STATES_PAUSED) * size
    database = 0
    if store.url.startswith("sqlite:"):
        database = DATABASE_BYTES + config.budget.trials * DATABASE_BYTES_PER_TRIAL
    free = shutil.disk_usage(folder).free
    require(
        checkpoints + states + database <= free + _bytes_below(begun),
        f"a study's disk must hold its checkpoints: {config.budget.trials:,} trials of about "
        f"{max(designs):,.0f} parameters need {_size(checkpoints)}, the states of trainings "
        f"{_size(states)}, and the database {_size(database)}; {folder} has {_size(free)} free; "
        "free some, lower budget.trials or the backbone, or choose another --db",
    )


def check_writable(runs: Path) -> Path:
    """The existing folder that `runs` is or will be made in; InputError unless it is writable."""
    found = runs
    while not os.path.lexists(found):
        found = found.parent
    way_out = "make it a writable folder, or choose another --db"
    if found.is_symlink() and not found.exists():
        reason = f"{found} is a link to {os.readlink(found)}, which does not exist"
        raise InputError(f"checkpoints need a folder: {reason}; {way_out}")
    require(found.is_dir(), f"checkpoints need a folder: {found} is a file; {way_out}")
    try:
        # Only a real file tells: permissions say nothing of full and read-only file systems.
        with tempfile.TemporaryFile(dir=found) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        raise InputError(
            f"checkpoints go to {runs}, and {found} cannot be written to: {error.strerror}; "
            f"{way_out}"
        ) from error
    return found


def _bytes_below(folder: Path | None) -> int:
    """What the files of a folder take; 0 without one."""
    if folder is None or not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _known(config: StudyConfig) -> list[FFNSpec]:
    """The designs whose costs stand for the study's: its warm starts and its reference."""
    return [reference(config.backbone), *(spec for _, spec in config.warm_start_specs())]


def _size(count: float) -> str:
    """Bytes for people: 1.5 GB, 20 MB."""
    for unit, step in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
