"""A ReLU router's choice: the experts whose gates are open, any number a token.

T tokens, B experts, P = T * B (token, expert) pairs at most, sorted by expert.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.choice import Choice
from workers.kernels.torch.relu_choice import relu_choice as torch_form


def relu_choice(z_TB: Tensor, coefficient: Tensor) -> Choice:
    """The experts of z > 0, z as their weights, and as loss the coefficient times the mean of
    relu(z) over tokens and experts. Asks the device nothing: the pairs have room for all, those
    that are come first.

    Differentiable once in z.

    z_TB: the router's logits, (T, B), float32 or wider.
    coefficient: a scalar, float32.
    """
    run = form("relu_choice", torch_form, z_TB, size=z_TB.shape[1])
    return run(z_TB, coefficient)
