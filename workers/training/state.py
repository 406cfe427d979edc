"""`TrainState`: all that training carries from one step to the next, and its files.

A state is two files of a folder, a path or any fsspec URL: `step-N.safetensors` and then
`step-N.json`, which has the first one's checksum and a seal of its own. So a state is whole or
absent, and one that was damaged later is known. A run's folder has the states of its trunk, and the
folder `branch` in it those of the branch that is under way.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import torch
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from search_space.contract import EvalRequest
from search_space.errors import InputError
from workers.corpus.seal import sealed, unsealed
from workers.layers.declared import Declared, declared
from workers.training.carried import Carried
from workers.training.optimizers import Optimizers
from workers.training.shards import gathered, put

log = logging.getLogger(__name__)
FORMAT = 2
KEPT = 2  # the newest, and the one before it for when that is damaged
BRANCH = "branch"
_NAME = re.compile(r"step-(\d+)\.json")
_STATE = re.compile(r"(^|/)step-\d+\.(json|safetensors)(\.[0-9a-f]{8})?$")  # drafts of writes too


@dataclass(frozen=True)
class TrainState:
    """Where a training stands.

    step: steps done.
    request: whose run it is, and on a branch the rung, as plain data.
    tensors: parameters, buffers and moments by name.
    numbers: what parts carry beside, by the part's name.
    """

    step: int
    request: dict[str, Any]
    tensors: dict[str, Tensor]
    numbers: dict[str, dict[str, float]]


def gather(
    identity: dict[str, Any],
    step: int,
    model: nn.Module,
    optimizers: Optimizers,
    parts: Mapping[str, Carried],
) -> TrainState:
    """Everything that training carries after `step` steps; tensors are shared, not copied.

    Sharded ones are gathered, to the CPU of each process.
    """
    tensors = {f"model.{name}": gathered(value) for name, value in _model_tensors(model).items()}
    for name, p in model.named_parameters():
        for key, value in optimizers.state_of(p).items():
            tensors[f"moment.{name}.{key}"] = gathered(value)
    found = _carriers(model, optimizers, parts)
    numbers = {name: part.carried() for name, part in found.items()}
    return TrainState(step, identity, tensors, numbers)


def restore(
    state: TrainState,
    request: EvalRequest,
    model: nn.Module,
    optimizers: Optimizers,
    parts: Mapping[str, Carried],
) -> int:
    """Put a state into a fresh model and its optimizers; returns the steps done.

    Raises InputError when the state is another run's or another rung's branch's, or lacks a part.
    """
    mine = request.identity()
    if "until_flops" in state.request:
        mine["until_flops"] = request.until_flops
    for name, value in mine.items():
        if state.request.get(name) != value:
            raise InputError(
                f"a training goes on from its own state: its {name} is {value!r}, the state's "
                f"{state.request.get(name)!r}"
            )
    own = _model_tensors(model)
    held = {name: t for name, t in state.tensors.items() if name.startswith("model.")}
    if {f"model.{name}" for name in own} != set(held):
        raise InputError("a training state holds other tensors than its model: it is of no use")
    with torch.no_grad():
        for name, value in own.items():
            put(value, held[f"model.{name}"])
    for name, p in model.named_parameters():
        prefix = f"moment.{name}."
        moments = {
            key.removeprefix(prefix): value
            for key, value in state.tensors.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }
        if moments:
            optimizers.set_state_of(p, moments)
    for name, part in _carriers(model, optimizers, parts).items():
        part.carry(state.numbers[name])
    return state.step


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those too that a checkpoint of the model leaves out."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _carriers(
    model: nn.Module, optimizers: Optimizers, parts: Mapping[str, Carried]
) -> dict[str, Carried | Declared]:
    layers = {f"model.{name}": layer for name, layer in declared(model) if layer.carried()}
    # One name for the optimizer of one process and of several: either goes on from the other.
    steppers = {
        f"optimizer.{type(o).__name__.removeprefix('Sharded')}": o
        for o in optimizers.optimizers
        if isinstance(o, Carried)
    }
    return {**layers, **steppers, **parts}


def save_state(state: TrainState, place: str) -> None:
    """Write a state into the folder `place`, a path or an fsspec URL.

    Of the states up to this one the newest `KEPT` stay, and all of those beyond. Raises OSError
    when it cannot be written.
    """
    fs, folder = _open(place)
    fs.makedirs(folder, exist_ok=True)
    data = save_tensors({name: t.detach().contiguous() for name, t in state.tensors.items()})
    facts = {
        "format": FORMAT,
        "step": state.step,
        "request": state.request,
        "numbers": state.numbers,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    stem = f"{folder}/step-{state.step}"
    _write(fs, f"{stem}.safetensors", data)
    _write(fs, f"{stem}.json", sealed(facts).encode())
    up_to_here = [step for step in _steps(fs, folder) if step <= state.step]
    for step in up_to_here[KEPT:]:
        # The facts go first: a state without them is absent.
        for suffix in ("json", "safetensors"):
            fs.rm_file(f"{folder}/step-{step}.{suffix}")


def load_state(
    place: str, fits: Callable[[TrainState], bool] = lambda state: True
) -> TrainState | None:
    """The newest whole state in the folder `place` that fits; None when there is none.

    One that is damaged is passed over, with a warning, for the one before.
    """
    fs, folder = _open(place)
    for step in _steps(fs, folder):
        try:
            state = _read(fs, f"{folder}/step-{step}")
            if fits(state):
                return state
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning(
                "the training state %s/step-%d is damaged (%s); taking the one before",
                folder, step, error,
            )  # fmt: skip
    return None


def branch_of(place: str) -> str:
    """The folder of the branch's states in a run's."""
    return f"{place.rstrip('/')}/{BRANCH}"


def remove(place: str) -> bool:
    """Remove the states in the folder `place`, and the folder when nothing else is in it; whether
    there were any. Raises OSError when they cannot be removed."""
    fs, folder = _open(place)
    if not fs.isdir(folder):
        return False
    # Only files that were written here: a folder is never removed with what others put there.
    states = [path for path in fs.ls(folder, detail=False, refresh=True) if _STATE.search(path)]
    for path in states:
        fs.rm_file(path)
    if isinstance(fs, LocalFileSystem) and not os.listdir(folder):
        os.rmdir(folder)
    return bool(states)


def _open(place: str) -> tuple[AbstractFileSystem, str]:
    # In a path, "::" and "://" are letters; fsspec would chain file systems by them.
    if os.path.isabs(place):
        return LocalFileSystem(), place
    fs, folder = fsspec.core.url_to_fs(place)
    return fs, str(folder)


def _read(fs: AbstractFileSystem, stem: str) -> TrainState:
    facts = unsealed(fs.cat_file(f"{stem}.json"))
    if facts is None:
        raise ValueError("its facts are not those that were written")
    if facts["format"] != FORMAT:
        raise ValueError(f"its format is {facts['format']}, this version reads {FORMAT}")
    data = fs.cat_file(f"{stem}.safetensors")
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise ValueError("its checksum differs")
    return TrainState(facts["step"], facts["request"], load_tensors(data), facts["numbers"])


def _steps(fs: AbstractFileSystem, folder: str) -> list[int]:
    """The steps that states are of, the newest first."""
    if not fs.isdir(folder):
        return []
    names = (str(path).rsplit("/", 1)[-1] for path in fs.ls(folder, detail=False, refresh=True))
    found = (_NAME.fullmatch(name) for name in names)
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _write(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Whole or not at all: an object store does that by itself, a file system by a rename."""
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    draft = f"{path}.{uuid.uuid4().hex[:8]}"
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
