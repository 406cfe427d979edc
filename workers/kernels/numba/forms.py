"""All the compiled forms that dispatch hands out."""

from workers.kernels.numba.expert_ffn import MOST_UNITS, expert_ffn
from workers.kernels.numba.product_key import (
    MOST_CHOICES,
    product_key_search,
    top_indices,
)
from workers.kernels.numba.rms_norm import normed_heads, rms_norm
from workers.kernels.numba.row_reads import row_dot, row_sum

__all__ = [
    "MOST_CHOICES",
    "MOST_UNITS",
    "expert_ffn",
    "normed_heads",
    "product_key_search",
    "rms_norm",
    "row_dot",
    "row_sum",
    "top_indices",
]
