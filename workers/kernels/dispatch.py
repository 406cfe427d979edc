"""The only place that picks a backend: forms compiled by numba on a CPU, Triton's on a GPU that
passed, torch's elsewhere and where those do not take a dtype.

A GPU runs the Triton forms after a numerical check on that very device; where it fails, the torch
forms run and a warning says why. Three variables steer it, read here alone:

FFN_NAS_KERNELS   auto (default), torch (on any device), or triton (no check: for tests and
                  benchmarks)
FFN_NAS_AUTOTUNE  1 (default) times each kernel's configurations once a device, 0 takes the first
FFN_NAS_CACHE     where check results and timings are kept (default: the user's cache folder)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from search_space.errors import InputError, require
from search_space.places import cache_dir

log = logging.getLogger(__name__)

# By name, not by an import statement: an exported model carries this file without them.
TRITON_OPS = "workers.kernels.triton.ops"
COMPILED_FORMS = "workers.kernels.numba.forms"
SELF_CHECK = "workers.kernels.selfcheck"
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COMPILED_DTYPES = (torch.float32, torch.float64)


class Backend(StrEnum):
    """Which forms of the operations run."""

    AUTO = "auto"
    TORCH = "torch"
    TRITON = "triton"


@dataclass(frozen=True)
class Settings:
    """What the environment says about kernels.

    cache: None where there is neither FFN_NAS_CACHE nor a home; a CPU needs none.
    """

    backend: Backend
    autotune: bool
    cache: Path | None

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises InputError for a value that is none of the known."""
        backend = os.environ.get("FFN_NAS_KERNELS") or "auto"
        autotune = os.environ.get("FFN_NAS_AUTOTUNE") or "1"
        known = ", ".join(Backend)
        require(
            backend in list(Backend), f"FFN_NAS_KERNELS must be one of {known}: got {backend!r}"
        )
        require(autotune in ("0", "1"), f"FFN_NAS_AUTOTUNE must be 0 or 1: got {autotune!r}")
        try:
            cache = cache_dir()
        except InputError:
            cache = None
        return cls(Backend(backend), autotune == "1", cache)


_override: ContextVar[Settings | None] = ContextVar("kernel_settings", default=None)
_environment = functools.cache(Settings.from_environment)


def settings() -> Settings:
    """The settings in force."""
    return _override.get() or _environment()


def cache_folder() -> Path:
    """Where results of checks and timings are kept; InputError where no place is known."""
    return settings().cache or cache_dir()


@contextlib.contextmanager
def override(
    backend: Backend | None = None, autotune: bool | None = None, cache: Path | None = None
) -> Iterator[None]:
    """Other settings for the body; None keeps what is in force."""
    given = {"backend": backend, "autotune": autotune, "cache": cache}
    changes = {name: value for name, value in given.items() if value is not None}
    token = _override.set(dataclasses.replace(settings(), **changes))
    try:
        yield
    finally:
        _override.reset(token)


def triton_ops(*tensors: Tensor) -> ModuleType | None:
    """The Triton forms where they are to run on these tensors, else None.

    They need one dtype of float32, float16 or bfloat16.
    """
    first = tensors[0]
    if first.device.type != "cuda" and _override.get() is None:
        return None
    backend = settings().backend
    if backend is Backend.TORCH or any(x.dtype != first.dtype for x in tensors):
        return None
    if first.dtype not in TRITON_DTYPES:
        return None
    if backend is Backend.TRITON:
        forced = first.device.type == "cuda" or interpreted()
        return importlib.import_module(TRITON_OPS) if forced else None
    if first.device.type != "cuda" or why_not(first.device.index or 0):
        return None
    return importlib.import_module(TRITON_OPS)


def compiled_ops(*tensors: Tensor) -> ModuleType | None:
    """The forms compiled for this CPU where they are to run on these tensors, else None.

    They need one dtype of float32 or float64.
    """
    first = tensors[0]
    if first.device.type != "cpu" or first.dtype not in COMPILED_DTYPES:
        return None
    if any(x.dtype != first.dtype for x in tensors) or settings().backend is not Backend.AUTO:
        return None
    return compiled_forms()[0]


@functools.cache
def compiled_forms() -> tuple[ModuleType | None, str]:
    """The forms compiled for the CPU, or why there are none."""
    if not __name__.startswith("workers."):
        return None, "an exported model runs on torch alone"
    try:
        forms = importlib.import_module(COMPILED_FORMS)
    except (ImportError, RuntimeError) as error:  # RuntimeError: numba may write to no folder
        log.warning("the torch forms run on the CPU: %s", error)
        return None, str(error)
    importlib.import_module("workers.kernels.recycle").keep_freed_blocks()
    return forms, ""


@functools.cache
def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels here, as Triton forms on a CPU need."""
    kernels = importlib.import_module(TRITON_OPS).grouped
    if type(kernels.product_kernel).__name__ == "InterpretedFunction":
        return True
    log.warning(
        "the torch forms run: Triton forms on a CPU need its interpreter, TRITON_INTERPRET=1 set "
        "before triton is first imported"
    )
    return False


@functools.cache
def why_not(device_index: int) -> str:
    """Why this process runs torch forms on that GPU; "" where the Triton forms passed."""
    device = torch.device("cuda", device_index)
    try:
        reason = str(importlib.import_module(SELF_CHECK).verdict(device))
    except ImportError as error:
        reason = f"the Triton forms cannot be imported: {error}"
    if reason:
        log.warning("the torch forms run on %s: %s", torch.cuda.get_device_name(device), reason)
    return reason


def describe(device: str = "cpu") -> str:
    """Which kernels run on a device, for a trial's record: `numba 0.68.1`, `triton 3.9.0`,
    `torch`, or `torch` with the reason in brackets. Never raises."""
    chosen = torch.device(device)
    try:
        backend = settings().backend
    except InputError as error:
        return f"torch ({error})"
    if backend is Backend.TORCH or (chosen.type not in ("cpu", "cuda") and backend is Backend.AUTO):
        return "torch"
    package = "triton"
    if chosen.type == "cuda":
        reason = "" if backend is Backend.TRITON else why_not(chosen.index or 0)
    elif backend is Backend.AUTO:
        package, reason = "numba", compiled_forms()[1]
    else:
        reason = "" if interpreted() else "no TRITON_INTERPRET=1 before triton was imported"
    return f"torch ({reason})" if reason else f"{package} {importlib.metadata.version(package)}"
