"""The order of (token, expert) pairs by expert, by torch's sort.

T tokens, B experts, K choices a token, P = T * K pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.pairs import Loads, Pairs
from workers.kernels.place import kind


def order_pairs(
    index_TK: Tensor, weight_TK: Tensor | None, n_experts: int
) -> tuple[Pairs, Tensor | None]:
    """As workers.kernels.api.pair_order says."""
    expert_P, choice_P = by_expert(index_TK.reshape(-1), n_experts)
    # One source an element: the gradient is a plain copy.
    weight_P = None if weight_TK is None else weight_TK.reshape(-1).gather(0, choice_P)
    loads = Loads.of_sorted(expert_P, n_experts)
    return Pairs(choice_P // index_TK.shape[1], loads, choice_P), weight_P


def order_open(weight_TB: Tensor, open_TB: Tensor) -> tuple[Pairs, Tensor]:
    """The open pairs sorted by expert, and after them room up to T * B, whose token is T; and the
    weights in their order. Asks the device nothing.

    weight_TB: (T, B).
    open_TB: (T, B), bool.
    """
    n_tokens, n_experts = open_TB.shape
    expert_B1 = torch.arange(n_experts, device=open_TB.device)[:, None]
    key_P = torch.where(open_TB.t(), expert_B1, n_experts).flatten()
    expert_P, order_P = by_expert(key_P, n_experts)
    token_P = torch.where(expert_P < n_experts, order_P % n_tokens, n_tokens)
    # One source an element: its gradient is a plain copy.
    weight_P = weight_TB.t().flatten().gather(0, order_P)
    return Pairs(token_P, Loads.of_sorted(expert_P, n_experts)), weight_P


def by_expert(expert_P: Tensor, n_experts: int) -> tuple[Tensor, Tensor]:
    """The experts in order, and where each stood; of equal ones the first stays the first.

    expert_P: 0 to n_experts, that included.
    """
    # A GPU sorts a byte at a time.
    if kind(expert_P) != "cpu":
        expert_P = expert_P.to(torch.int16 if n_experts < 1 << 15 else torch.int32)
    return torch.sort(expert_P, stable=True)
