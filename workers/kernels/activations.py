"""The activations by name, with what their backward needs.

relu, silu (x sigmoid(x)) and the exact gelu (x times the normal distribution function).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def value_and_slope(activation: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """act(x) and act'(x), both of x's shape; relu's slope at 0 is 0."""
    if activation == "relu":
        return F.relu(x), (x > 0).to(x.dtype)
    if activation == "silu":
        # One exponential for both: silu' = s + a (1 - s).
        s = torch.sigmoid(x)
        a = x * s
        return a, torch.addcmul(a, s, 1 - a)
    one = x.new_ones(()).expand_as(x)
    return F.gelu(x), torch.ops.aten.gelu_backward(one, x)
