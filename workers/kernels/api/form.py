"""The way from an operation to the form of it that is to run."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor

Form = TypeVar("Form", bound=Callable[..., Any])


# An exported model carries this file without the other backends, and runs on torch whatever version
# of this package may lie beside it.
_EXPORTED = not __name__.startswith("workers.")


def form(operation: str, torch_form: Form, *tensors: Tensor, size: int = 0) -> Form:
    """A form of `operation`, of the same signature as `torch_form`: see dispatch.form."""
    if _EXPORTED:
        return torch_form
    chosen: Form = _dispatch().form(operation, torch_form, tensors, size)
    return chosen


def most_mixed_units() -> int:
    """Of an expert, up to which a CPU's own form takes it in mixed precision: see dispatch."""
    return 0 if _EXPORTED else int(_dispatch().MOST_MIXED_UNITS)


@functools.cache
def _dispatch() -> ModuleType:
    # By name, not by an import statement, which an export would follow.
    return importlib.import_module("workers.kernels.dispatch")
