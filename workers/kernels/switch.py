"""torch's switch for float32 products of CPUs: whether oneDNN multiplies, or torch's default.

Its word says bfloat16, for it lets oneDNN round the factors. Most processors have no instruction
for that, and then oneDNN multiplies in float32 all the same (workers.kernels.products looks).
The switch is the whole process's. `exact_products` is its like on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

ON, OFF = "bf16", "none"

# torch's types leave out what this module makes of itself when it is imported.
_mkldnn: Any = torch.backends.mkldnn


def onednn_multiplies() -> bool:
    """Whether the switch is on."""
    return bool(_mkldnn.matmul.fp32_precision == ON)


@contextlib.contextmanager
def onednn(on: bool) -> Iterator[None]:
    """The switch on or off for the body, and after it as it was."""
    before = _mkldnn.matmul.fp32_precision
    turn_switch(ON if on else OFF)
    try:
        yield
    finally:
        turn_switch(before)


def turn_switch(word: str) -> None:
    """Set the switch to one of torch's words."""
    _mkldnn.matmul.fp32_precision = word


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products of the body are float32's on a GPU, too: without TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
