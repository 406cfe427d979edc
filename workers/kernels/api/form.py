"""The way from an operation to the form of it that is to run."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

from torch import Tensor


def form(operation: str, torch_form: Callable, *tensors: Tensor, size: int = 0) -> Callable:
    """A form of `operation`, of the same signature as `torch_form`: see dispatch.form."""
    dispatch = _dispatch()
    if dispatch is None:
        return torch_form
    return dispatch.form(operation, torch_form, tensors, size)


@functools.cache
def _dispatch() -> ModuleType | None:
    # By name, not by an import statement: an exported model carries this file without the other
    # backends, and runs on torch whatever version of this package may lie beside it.
    ours = __name__.startswith("workers.")
    return importlib.import_module("workers.kernels.dispatch") if ours else None
