"""Product-key search: the best of all sums of a first and a second half's score.

S = 2 H halves of H heads, T tokens, C width of half a query, R sub-keys of a half, K choices of a
head.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.torch.product_key import product_key_search as torch_form


def product_key_search(query_STC: Tensor, sub_keys_SRC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores of each head's k best sums, the best first, and their indices a * R + b, (H, T, K).

    The halves of head h are 2 h, which gives a, and 2 h + 1, which gives b. Differentiable once in
    queries and sub-keys.

    query_STC: (S, T, C).
    sub_keys_SRC: (S, R, C).
    k: at most R * R.
    """
    run = form("product_key_search", torch_form, query_STC, sub_keys_SRC, size=k)
    return run(query_STC, sub_keys_SRC, k)
