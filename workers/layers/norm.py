"""RMSNorm as a module, on the operations of workers.kernels.api."""

from __future__ import annotations

from torch import Tensor, nn

from workers.kernels.api.residual_norm import Normed, residual_norm
from workers.kernels.api.rms_norm import EPS, rms_norm
from workers.layers.declared import Declared


class RMSNorm(nn.RMSNorm, Declared):
    """x / sqrt(mean(x^2) + 1e-6) * weight over the last dim."""

    gains = ("weight",)

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x_D: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        return rms_norm(x_D, self.weight)

    def of_sum(self, x_D: Tensor, added_D: Tensor | None, *, wide: bool = True) -> Normed:
        """x + added and its norm, (..., width) each, as api.residual_norm says."""
        return residual_norm(x_D, added_D, self.weight, wide=wide)
