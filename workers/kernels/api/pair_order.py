"""The order of (token, expert) pairs by expert.

T tokens, B experts, K choices a token, P = T * K pairs.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.pairs import Pairs
from workers.kernels.torch.pair_order import order_pairs as torch_form


def order_pairs(
    index_TK: Tensor, weight_TK: Tensor | None, n_experts: int
) -> tuple[Pairs, Tensor | None]:
    """The pairs sorted by expert, those of one by token and choice, and the weights (P,) in their
    order. Differentiable in the weights; asks the device nothing.

    index_TK: the experts that each token reads, (T, K), 0 to n_experts - 1; one may come twice.
    weight_TK: (T, K), or None for all ones.
    """
    run = form("order_pairs", torch_form, index_TK, size=n_experts)
    return run(index_TK, weight_TK, n_experts)
