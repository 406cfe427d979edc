"""What the environment says about kernels. Four variables steer them, and are read here alone:

FFN_NAS_KERNELS   auto (default: the device's own backend), or one backend's name: torch (on any
                  device), numba (on a CPU), triton (without its check: for tests and benchmarks)
FFN_NAS_PRODUCTS  auto (default: what was measured to be fastest on this machine), torch (its own
                  default), onednn (where it multiplies in float32), for float32 products on a CPU
FFN_NAS_AUTOTUNE  1 (default) times each Triton kernel's configurations once a device, 0 takes the
                  first
FFN_NAS_CACHE     where check results and timings are kept (default: the user's cache folder)
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from search_space.errors import InputError, require
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

    @classmethod
    def from_environment(cls) -> Settings:
        """Raises InputError for a value that is none of the known."""
        backend = os.environ.get("FFN_NAS_KERNELS") or "auto"
        autotune = os.environ.get("FFN_NAS_AUTOTUNE") or "1"
        known = ", ".join(Backend)
        require(
            backend in list(Backend), f"FFN_NAS_KERNELS must be one of {known}: got {backend!r}"
        )
        products = os.environ.get("FFN_NAS_PRODUCTS") or "auto"
        require(
            products in list(Products),
            f"FFN_NAS_PRODUCTS must be one of {', '.join(Products)}: got {products!r}",
        )
        require(autotune in ("0", "1"), f"FFN_NAS_AUTOTUNE must be 0 or 1: got {autotune!r}")
        try:
            cache = cache_dir()
        except InputError:
            cache = None
        return cls(Backend(backend), autotune == "1", cache, Products(products))


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
    now = settings()
    changed = Settings(
        backend=now.backend if backend is None else backend,
        autotune=now.autotune if autotune is None else autotune,
        cache=now.cache if cache is None else cache,
        products=now.products if products is None else products,
    )
    token = _override.set(changed)
    try:
        yield
    finally:
        _override.reset(token)
