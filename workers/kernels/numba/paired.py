"""Factors of products in bfloat16, as compiled blocks read them: two terms of a sum in an int32.

Processors multiply two such pairs and add both products to a float32 at once. Where none does, the
blocks make the same of float32 (workers.kernels.numba.blocks).

B experts, I and O inner and outer widths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.kernels.numba.blocks import address
from workers.kernels.numba.copies import HALF, pair_row
from workers.kernels.numba.library import jit, operator


def paired_columns(x: Tensor) -> Tensor:
    """(..., I) as (..., ceil(I / 2)) int32: for sums over the columns. A zero fills up the last."""
    width = x.shape[-1]
    if width % 2 == 0:
        return x.to(torch.bfloat16).view(torch.int32)
    narrow = torch.zeros(*x.shape[:-1], width + 1, dtype=torch.bfloat16)
    narrow[..., :width] = x
    return narrow.view(torch.int32)


def paired_rows(w_BIO: Tensor) -> Tensor:
    """(B, ceil(I / 2), O) int32: for sums over the rows."""
    n_experts, inner, outer = w_BIO.shape
    out = torch.empty(n_experts, (inner + 1) // 2, outer, dtype=torch.int32)
    pair_rows_of(w_BIO.to(torch.bfloat16).view(torch.int16), out)
    return out


@operator("pair_rows_of(Tensor w, Tensor(a!) out) -> ()")
@jit
def pair_rows_of(w_BIO: Any, out_BLO: Any) -> None:
    """out: pairs of lines of w, whose entries are 16 bits."""
    inner, outer = w_BIO.shape[1:]
    nothing = np.zeros(outer, w_BIO.dtype)
    for expert in range(len(w_BIO)):
        w, out = address(w_BIO[expert]), address(out_BLO[expert])
        for i in range(0, inner, 2):
            a = w + i * outer * HALF
            b = a + outer * HALF if i + 1 < inner else address(nothing)
            pair_row(a, b, outer, out + i * outer * HALF)
