"""Sigmoid gates with a threshold and straight-through gradients, of every expert and token.

T tokens, B experts.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.choice import Threshold
from workers.kernels.torch.gates import threshold_gates as torch_form


def threshold_gates(z_TB: Tensor, rule: Threshold) -> tuple[Tensor, Tensor | None]:
    """The weights of all experts, (T, B), 0 for a shut gate, and the loss where the rule has one.

    p = sigmoid(z) is open above tau, and the largest where none is. A weight has the value of the
    open p and the gradient of p, and so has the loss, in which an opened largest counts as shut
    (DSMoE, arXiv 2502.12455). Differentiable once in z.

    z_TB: the router's logits, (T, B), float32 or wider.
    """
    return form("threshold_gates", torch_form, z_TB, size=z_TB.shape[1])(z_TB, rule)
