"""Linear head and cross-entropy in one: the logits, a proxy's largest tensor, never stand whole.

T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import lowered
from workers.kernels.torch.cross_entropy import linear_cross_entropy as torch_form


def linear_cross_entropy(x_TD: Tensor, w_VD: Tensor, target_T: Tensor) -> Tensor:
    """Mean over tokens of -log softmax(x w^T)[target], in nats.

    Both gradients are made in the forward pass, where the logits are. Differentiable once in x and
    w. FLOPs 2 T V D, and twice that for the gradients. Raises ValueError for no tokens.

    x_TD: (T, D).
    w_VD: (V, D).
    target_T: token ids (T,).
    """
    if x_TD.shape[0] == 0:
        raise ValueError("the mean loss of no tokens is undefined: x has 0 rows")
    x_TD, w_VD = lowered(x_TD), lowered(w_VD)
    return form("linear_cross_entropy", torch_form, x_TD, w_VD)(x_TD, w_VD, target_T)
