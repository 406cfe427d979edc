"""Attention of queries to keys and values.

N sequences, H heads, L queries, S keys, C width of a head.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import unmixed
from workers.kernels.place import kind
from workers.kernels.torch.attention import attention as torch_form


def attention(
    q_NHLC: Tensor, k_NHSC: Tensor, v_NHSC: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """(N, H, L, C): softmax(scale q k^T) v. Differentiable in q, k and v.

    q_NHLC: queries.
    k_NHSC: keys.
    v_NHSC: values.
    mask: (N or 1, 1, L, S), True where a query may look; None for everywhere.
    causal: whether query l looks at the keys up to l alone; without a mask.
    scale: of the scores, above 0.
    """
    plain = causal and mask is None and q_NHLC.shape == k_NHSC.shape == v_NHSC.shape
    name = "attention" if plain else "masked_attention"
    run = form(name, torch_form, q_NHLC, k_NHSC, v_NHSC, size=q_NHLC.shape[2])
    if kind(q_NHLC) != "cpu":
        return run(q_NHLC, k_NHSC, v_NHSC, mask, causal, scale)
    with unmixed("cpu"):  # in 16 bits torch's gradients take up to five times as long
        return run(q_NHLC, k_NHSC, v_NHSC, mask, causal, scale)
