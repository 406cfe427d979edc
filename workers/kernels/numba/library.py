"""How a loop becomes an operator that torch knows: profiles, fake tensors, and FLOP counts
(workers.kernels.api.flops).

The operators write where they are told, and have no gradients of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch
from torch import Tensor

LIBRARY = torch.library.Library("ffn_nas_cpu", "DEF")
OPS = torch.ops.ffn_nas_cpu

Loop = Callable[..., None]

# The digest of all loops, of which any may call any.
CODE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba's decorator, for what is compiled once a machine."""
    compiled = numba.njit(nogil=True, cache=True, error_model="numpy", **options)

    def decorate(loop: Callable[..., Any]) -> Any:
        made = compiled(loop)
        # numba takes kept machine code until the loop's own file changes; but that has in it what
        # the loop calls of other files, too.
        kept = made._cache._cache_file
        kept._source_stamp = kept._source_stamp, CODE
        return made

    return decorate


jit = _compiled()
# Sums may be taken in any order, so that several numbers are added at a time.
ANY_ORDER = {"reassoc", "contract"}
jit_any_order = _compiled(fastmath=ANY_ORDER)
# Of a few numbers: passing arrays to it takes longer than what it does.
jit_inline = _compiled(fastmath=ANY_ORDER, inline="always")


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
