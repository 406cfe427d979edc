"""CPU memory that is used again from step to step.

glibc returns large blocks to the system when they are freed, and the system hands them back page by
page, zeroed: on the machines this was measured on, that takes up to ten times as long as to write
the block once. A step's gradients and activations are such blocks. glibc learns what is large from
the blocks that are freed, up to 32 MiB: it is taught that at once. Of more than that, as the
gradient of a large table, blocks are kept here.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from math import prod

import torch
from torch import Tensor

SMALL = 1 << 25  # bytes that glibc keeps for itself
SLACK = 8  # a block has 1 / SLACK of room above what was asked for, as row counts vary

_free: list[Tensor] = []
_lock = threading.Lock()


def keep_freed_blocks() -> None:
    """Frees one block of nearly 32 MiB that nobody touched, so that glibc keeps those up to it."""
    torch.empty(SMALL - (1 << 16), dtype=torch.uint8)


def recycled(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised CPU tensor; a large one lies in memory that earlier ones gave back.

    Memory is given back when the last tensor on it is gone, whoever holds it. What no request fits
    is returned to the system with the next new block.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes <= SMALL:
        return torch.empty(shape, dtype=dtype)
    block = _take(nbytes)
    # A tensor over foreign memory keeps its lender alive: the lender's end is the tensors' end.
    lender = (ctypes.c_char * nbytes).from_address(block.data_ptr())
    weakref.finalize(lender, _free.append, block).atexit = False
    return torch.frombuffer(lender, dtype=dtype).view(shape)


def _take(nbytes: int) -> Tensor:
    with _lock:
        fitting = [block for block in _free if block.numel() >= nbytes]
        if not fitting:
            _free.clear()
            return torch.empty(nbytes + nbytes // SLACK, dtype=torch.uint8)
        best = min(fitting, key=Tensor.numel)
        # By identity: tensors compare element by element.
        del _free[next(i for i, block in enumerate(_free) if block is best)]
        return best
