"""How a loop becomes an operator that torch knows: profiles, fake tensors, and FLOP counts
(workers.kernels.api.flops).

The operators write where they are told, and have no gradients of their own. Loops that call one
another stay in one file: numba's cache looks at the file of the outer one alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor

LIBRARY = torch.library.Library("ffn_nas_cpu", "DEF")
OPS = torch.ops.ffn_nas_cpu

Loop = Callable[..., None]

jit = numba.njit(nogil=True, cache=True, error_model="numpy")
# Sums may be taken in any order, so that several numbers are added at a time.
jit_any_order = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"}
)


def operator(schema: str) -> Callable[[Loop], Loop]:
    """Registers a loop over arrays as the operator of that schema, which returns nothing.

    schema: in torch's words; its tensors that are written are marked as such.
    """

    def register(loop: Loop) -> Loop:
        def run(*args: Any) -> None:
            loop(*(array(x) if isinstance(x, Tensor) else x for x in args))

        return tensor_operator(schema)(run)

    return register


def tensor_operator(schema: str) -> Callable[[Loop], Loop]:
    """As `operator`, of a function of tensors: what torch does inside it is counted as its own."""

    def register(run: Loop) -> Loop:
        name = LIBRARY.define(schema)
        LIBRARY.impl(name, run, "CPU")
        torch.library.register_fake(f"ffn_nas_cpu::{name}", _writes_only, lib=LIBRARY)
        registered: Loop = getattr(OPS, name).default
        return registered

    return register


def array(x: Tensor) -> Any:
    """The same memory, as loops read and write it."""
    return x.detach().numpy()


def _writes_only(*args: Any) -> None:
    return None
