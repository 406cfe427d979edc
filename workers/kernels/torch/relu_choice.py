"""A ReLU router's choice in torch.

T tokens, B experts, P = T * B (token, expert) pairs at most, sorted by expert.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.choice import Choice
from workers.kernels.torch.pair_order import order_open


def relu_choice(z_TB: Tensor, coefficient: Tensor) -> Choice:
    """As workers.kernels.api.relu_choice says."""
    weight_TB = z_TB.relu()
    pairs, weight_P = order_open(weight_TB, weight_TB.detach() > 0)
    # Moved in place when the step has been made.
    return Choice(pairs, weight_P, None, coefficient.clone() * weight_TB.mean())
