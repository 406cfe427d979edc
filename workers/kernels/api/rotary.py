"""Attention's heads: queries and keys RMS-normed and turned by their positions.

N sequences, L tokens of each, H heads, C width of a head.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import widened
from workers.kernels.api.rms_norm import EPS
from workers.kernels.torch.rotary import normed_heads as torch_form


def normed_heads(
    qkv_NL3HC: Tensor, q_gain_C: Tensor, k_gain_C: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, RMS-normed over C and their pairs (i, i + C/2) turned by their angles, and
    values as they are, (N, H, L, C) each. Differentiable once in qkv and the gains.

    qkv_NL3HC: queries, keys and values as their product makes them.
    q_gain_C, k_gain_C: of the norms of queries and of keys.
    cos: of the angles, (N or 1, 1, L, C/2).
    sin: the same.
    """
    qkv_NL3HC = widened(qkv_NL3HC)
    # Gains and angles may be wider: a form that needs them narrow makes them so.
    run = form("normed_heads", torch_form, qkv_NL3HC)
    return run(qkv_NL3HC, q_gain_C, k_gain_C, cos, sin, EPS)
