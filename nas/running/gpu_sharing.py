"""Several trials on one GPU: how many, by measurement, and one step fewer when memory runs out."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nas.running.ray_limits import Limits
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.errors import InputError, WorkFailed
from search_space.placement import reference

log = logging.getLogger(__name__)
MPS = "nvidia-cuda-mps-control"
MPS_SECONDS = 1.0  # in which a daemon that cannot run has ended


class Shares(NamedTuple):
    """What a study's workers reserve.

    gpus: of a GPU, by each; 0 for none.
    words: what was measured, or why nothing was; "" where there is no GPU.
    """

    gpus: float
    words: str


def probe(backbone: Backbone, recipe: Recipe, until_flops: float, device: str) -> EvalRequest:
    """The request that stands for a study's trials: its reference FFN in all layers."""
    if backbone.base is not None:  # the same shapes, without its weights
        backbone = dataclasses.replace(backbone, base=None)
    return EvalRequest(
        evaluation=0,
        spec=reference(backbone),
        backbone=backbone,
        recipe=recipe,
        corpus_dir="",
        until_flops=until_flops,
        device=device,
    )


def share_of(trials: int) -> float:
    """What Ray reserves for one of so many trials of a GPU; it counts ten-thousandths."""
    return math.floor(1e4 / trials) / 1e4


def trials_of(gpus: float) -> int:
    """How many trials share a GPU of which each reserves this."""
    return max(1, math.floor(1 / gpus + 1e-3)) if gpus else 1


def measured(probe: EvalRequest, limits: Limits, alive: Callable[[], None]) -> Shares:
    """How many trials like `probe` should share a GPU, measured on one of this Ray's.

    Where it cannot be measured, a trial has a GPU to itself, and the words say why. `alive` is
    called every second or so. Raises InputError where not even one trial fits, and where a GPU is
    asked for and there is none.
    """
    import ray

    if probe.device == "cpu":
        return Shares(0.0, "")
    if not ray.cluster_resources().get("GPU", 0):
        if probe.device == "auto":
            return Shares(0.0, "")
        raise InputError(
            f"workers.device: {probe.device} needs a GPU, and Ray sees none here; set it to auto"
        )
    from workers.actor import share_stream

    task = ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(share_stream)
    stream = task.options(num_returns="streaming").remote(probe)
    silent, told = 0, None
    try:
        while told is None:
            alive()
            ready, _ = ray.wait([stream], num_returns=1, timeout=1.0, fetch_local=False)
            silent = 0 if ready else silent + 1
            if silent > limits.start:
                raise WorkFailed(f"no GPU was free for {limits.start:g} s")
            if ready:
                told = ray.get(next(stream), timeout=limits.silent)
    except (WorkFailed, StopIteration, ray.exceptions.RayError) as error:
        ray.cancel(stream, force=True)
        return alone(str(error) or "the process that measured it died")
    if told.get("kind") == "input":
        raise InputError(told["error"])
    if "error" in told:
        return alone(told["error"])
    return Shares(share_of(told["trials"]), told["words"])


def alone(why: str) -> Shares:
    """A trial a GPU, since how many could share one was not measured."""
    return Shares(1.0, f"one trial a GPU: {' '.join(why.split())}")


def fewer(trials: int) -> int:
    """How many share a GPU after one of so many ran out of its memory."""
    return max(1, trials // 2)


def start_mps(folder: Path) -> subprocess.Popen[bytes] | None:
    """NVIDIA's multi-process service for all that this process starts, where it can be had: the
    kernels of processes that share a GPU then run beside each other, and not by turns.

    It runs in the foreground, so that it ends with our session. None, with a line in the log that
    says why, where it cannot be had; or where one runs already, which is then used.
    """
    if os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or Path("/tmp/nvidia-mps/control").exists():
        return None
    command = shutil.which(MPS)
    if command is None:
        log.info("trials that share a GPU take turns on it: there is no %s here", MPS)
        return None
    places = {
        "CUDA_MPS_PIPE_DIRECTORY": folder / "mps-pipe",
        "CUDA_MPS_LOG_DIRECTORY": folder / "mps-log",
    }
    for place in places.values():
        place.mkdir()
    environment = os.environ | {name: str(place) for name, place in places.items()}
    quiet: Any = subprocess.DEVNULL
    try:
        daemon = subprocess.Popen(
            [command, "-f"], env=environment, stdin=quiet, stdout=quiet, stderr=quiet
        )
    except OSError as error:
        log.warning("trials that share a GPU take turns on it: %s does not start: %s", MPS, error)
        return None
    time.sleep(MPS_SECONDS)
    if daemon.poll() is not None:
        log.warning(
            "trials that share a GPU take turns on it: %s ended with %d", MPS, daemon.returncode
        )
        return None
    os.environ.update({name: str(place) for name, place in places.items()})
    return daemon
