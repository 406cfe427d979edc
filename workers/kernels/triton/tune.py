"""Which configuration a kernel runs with: the fastest on this very device, remembered on disk.

A choice is kept per device, Triton version, kernel, dtype and widths; the size of the first call
that needs it is the size it was timed at. Without tuning every kernel takes its table's first.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from search_space.places import KERNELS
from workers.kernels.settings import cache_folder, settings
from workers.kernels.triton.config import Config

log = logging.getLogger(__name__)


def choose(
    kernel: str,
    configs: tuple[Config, ...],
    like: Tensor,
    widths: tuple[int, ...],
    run: Callable[[Config], None],
) -> Config:
    """The configuration for `like`'s device and dtype; times `run` with each where none is known.

    `run` must be harmless to repeat.
    """
    if torch.version.hip:
        configs = tuple(config for config in configs if not config.nvidia)
    if not (settings().autotune and like.is_cuda) or len(configs) == 1:
        return configs[0]
    name = torch.cuda.get_device_name(like.device)
    dtype = str(like.dtype).removeprefix("torch.")
    entry = f"{kernel}/{dtype}/{'x'.join(map(str, widths))}"
    path = cache_file(cache_folder(), name)
    return _remembered(path, entry, configs) or _timed(path, entry, configs, run)


@functools.cache  # asked at every launch, and a package's version is read from disk
def cache_file(cache: Path, device_name: str) -> Path:
    """Where a device's choices are kept."""
    device = re.sub(r"[^A-Za-z0-9]+", "-", device_name).strip("-")
    version = importlib.metadata.version("triton")
    return cache / KERNELS / f"{device}-triton-{version}.json"


def _remembered(path: Path, entry: str, configs: tuple[Config, ...]) -> Config | None:
    label = _read(path).get(entry)
    # A table that has changed since may no longer hold what was fastest.
    return next((config for config in configs if config.label == label), None)


def _timed(
    path: Path, entry: str, configs: tuple[Config, ...], run: Callable[[Config], None]
) -> Config:
    milliseconds = {config: _milliseconds(run, config) for config in configs}
    best = min(milliseconds, key=milliseconds.__getitem__)
    _write(path, entry, best.label)
    return best


def _milliseconds(run: Callable[[Config], None], config: Config) -> float:
    import triton

    try:
        return float(triton.testing.do_bench(lambda: run(config), warmup=5, rep=20))
    except triton.runtime.errors.OutOfResources:
        return float("inf")


@functools.cache
def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _write(path: Path, entry: str, label: str) -> None:
    choices = _read(path)  # the cached dict itself: this process sees its own choice at once
    choices[entry] = label
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process reads the old file or the new one, never half of one.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(choices, file, indent=2, sort_keys=True)
        os.replace(file.name, path)
    except OSError as error:
        log.warning("kernels will be timed again: %s is not writable: %s", path, error)
