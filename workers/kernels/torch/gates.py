"""Sigmoid gates with a threshold in torch.

T tokens, B experts.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.choice import Threshold


def threshold_gates(z_TB: Tensor, rule: Threshold) -> tuple[Tensor, Tensor | None]:
    """As workers.kernels.api.gates says."""
    p_TB = z_TB.sigmoid()
    above_TB, open_TB = above_and_open(p_TB, rule)
    weight_TB = straight_through(p_TB * open_TB, p_TB)
    loss = None
    if rule.sparsity:
        loss = rule.sparsity * straight_through(p_TB * above_TB, p_TB).mean()
    return scaled(weight_TB, open_TB, rule), loss


def above_and_open(p_TB: Tensor, rule: Threshold) -> tuple[Tensor, Tensor]:
    """Which gates are above the threshold, and which are open: those, or the largest alone."""
    above_TB = p_TB.detach() > rule.tau
    shut_T1 = ~above_TB.any(1, keepdim=True)
    best_T1 = p_TB.detach().argmax(1, keepdim=True)
    return above_TB, above_TB.scatter(1, best_T1, above_TB.gather(1, best_T1) | shut_T1)


def scaled(weight_TB: Tensor, open_TB: Tensor, rule: Threshold) -> Tensor:
    """The weights, so that those of a token have the same sum however many are open."""
    if not rule.renormalize:
        return weight_TB
    return weight_TB * (open_TB.shape[1] / open_TB.sum(1, keepdim=True, dtype=weight_TB.dtype))


def straight_through(value_TB: Tensor, p_TB: Tensor) -> Tensor:
    """The value of the one with the gradient of the other."""
    return value_TB.detach() + p_TB - p_TB.detach()
