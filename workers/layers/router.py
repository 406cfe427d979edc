"""The learned router that several selections share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.kernels.api.mixed import unmixed
from workers.layers.declared import Declared


class Router(Declared):
    """z = x W_r^T in float32, whatever the model's dtype. weight_BD: (B, D), rows of equal norm."""

    def __init__(self, d_model: int, n_experts: int) -> None:
        super().__init__()
        self.weight_BD = nn.Parameter(torch.empty(n_experts, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rows of norm 1: no expert starts ahead (sigma-MoE, arXiv 2310.10837)."""
        nn.init.normal_(self.weight_BD)
        with torch.no_grad():
            self.weight_BD.div_(self.weight_BD.norm(dim=1, keepdim=True))

    def forward(self, x_TD: Tensor) -> Tensor:
        """x_TD (T, D) -> logits (T, B), float32 or wider."""
        dtype = torch.promote_types(x_TD.dtype, torch.float32)
        with unmixed(x_TD.device.type):
            return F.linear(x_TD.to(dtype), self.weight_BD.to(dtype))
