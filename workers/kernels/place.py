"""Which kind of device the forms of operations and layers are chosen for.

It is that of the tensors. Inside `as_on` it is another's: so what a GPU computes can be traced and
compared on a machine without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

_acted: ContextVar[str | None] = ContextVar("kind_of_device", default=None)
_ever = False  # whether a body was ever inside: a step of decoding asks a hundred times


def kind(tensor: Tensor) -> str:
    """`cpu`, `cuda` or another of torch's names: whose forms run on this tensor."""
    # A compiler cannot follow a context's variable.
    if not _ever or torch.compiler.is_compiling():
        return tensor.device.type
    return _acted.get() or tensor.device.type


def acted() -> str | None:
    """The kind that is acted, None where the tensors' own counts."""
    return _acted.get()


@contextlib.contextmanager
def as_on(device_type: str) -> Iterator[None]:
    """The body takes the forms of another kind of device, on tensors of whichever it has."""
    global _ever
    _ever = True
    token = _acted.set(torch.device(device_type).type)
    try:
        yield
    finally:
        _acted.reset(token)
