"""Muon: momentum whose update is orthogonalised, for weight matrices (Jordan et al. 2024).

B matrices of one shape, M rows and N columns of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

# Quintic Newton-Schulz towards an orthogonal matrix.
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5
# Per-entry size of a Muon update relative to its learning rate: AdamW's usual (Moonlight,
# arXiv 2502.16982). It does not depend on how the hidden width is cut into experts.
UPDATE_RMS = 0.2


def orthogonalize(g_BMN: Tensor) -> Tensor:
    """The nearest matrices with singular values about 1, batched: (B, M, N) -> (B, M, N)."""
    a, b, c = NS_COEFFICIENTS
    tall = g_BMN.shape[1] > g_BMN.shape[2]
    x = g_BMN.transpose(1, 2) if tall else g_BMN
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NS_STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def orthogonalize_flops(batch: int, rows: int, cols: int) -> float:
    """FLOPs of `orthogonalize` on (batch, rows, cols)."""
    m, n = sorted((rows, cols))
    return NS_STEPS * batch * (2 * 2.0 * m * m * n + 2.0 * m**3)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: w -= lr * update, Nesterov, matrices of one shape as one batch."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape[-2:]].append(p)
            for params in by_shape.values():
                self._update(params, group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        rows, cols = params[0].shape[-2:]
        directions = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            direction = p.grad.lerp(state["momentum"], group["momentum"])
            directions.append(direction.reshape(-1, rows, cols))
        updates = orthogonalize(torch.cat(directions)).split([len(d) for d in directions])
        scale = UPDATE_RMS * math.sqrt(max(rows, cols))
        for p, update in zip(params, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)
