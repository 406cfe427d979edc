"""What the environment says about kernels. Five variables steer them, and are read here alone:

FFN_NAS_KERNELS   auto (default: the device's own backend), or one backend's name: torch (on any
                  device), numba (on a CPU), triton (without its check: for tests and benchmarks)
FFN_NAS_PRODUCTS  auto (default: what was measured to be fastest on this machine), torch (its own
                  default), onednn (where it multiplies in float32), for float32 products on a CPU
FFN_NAS_AUTOTUNE  1 (default) times each Triton kernel's configurations once a device, 0 takes the
                  first
FFN_NAS_GRAPH     1 (default) launches a GPU's training step as one CUDA graph, 0 each operation
FFN_NAS_CACHE     where check results and timings are kept (default: the user's cache folder)
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from search_space.checks import one_of
from search_space.errors import InputError
from search_space.places import cache_dir


class Backend(StrEnum):
    """Whose forms of the operations run; AUTO is the device's own."""

    AUTO = "auto"
    TORCH = "torch"
    NUMBA = "numba"
    TRITON = "triton"


class Products(StrEnum):
    """Whose float32 products run on a CPU; AUTO is the fastest."""

    AUTO = "auto"
    TORCH = "torch"
    ONEDNN = "onednn"


@dataclass(frozen=True)
class Settings:
    """What the environment says about kernels.

    cache: None where there is neither FFN_NAS_CACHE nor a home; a CPU does without.
    """

    backend: Backend
    autotune: bool
    cache: Path | None
    products: Products = Products.AUTO
    graph: bool = True

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises InputError for a value that is none of the known."""
        backend = Backend(_asked("FFN_NAS_KERNELS", tuple(Backend)))
        autotune = _asked("FFN_NAS_AUTOTUNE", ("1", "0")) == "1"
        products = Products(_asked("FFN_NAS_PRODUCTS", tuple(Products)))
        try:
            cache = cache_dir()
        except InputError:
            cache = None
        graph = _asked("FFN_NAS_GRAPH", ("1", "0")) == "1"
        return cls(backend, autotune, cache, products, graph)


def _asked(variable: str, known: tuple[str, ...]) -> str:
    """What a variable of the environment says; the first of the known where it says nothing."""
    value = os.environ.get(variable) or known[0]
    one_of(variable, value, known)
    return value


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
    backend: Backend | None = None,
    autotune: bool | None = None,
    cache: Path | None = None,
    products: Products | None = None,
) -> Iterator[None]:
    """Other settings for the body; None keeps what is in force."""
    given: dict[str, Any] = {"backend": backend, "autotune": autotune, "cache": cache}
    given |= {"products": products}
    told = {name: value for name, value in given.items() if value is not None}
    token = _override.set(replace(settings(), **told))
    try:
        yield
    finally:
        _override.reset(token)
