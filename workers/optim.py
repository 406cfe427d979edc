"""Muon for the weight matrices, AdamW for the rest, and the warmup-stable-decay schedule.

A matrix parameter is one that its module names in `matrices`; its last two dims are the matrix,
dims before them a batch (experts, or q, k and v).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from search_space.contract import Recipe

# Quintic Newton-Schulz towards an orthogonal matrix (Muon, Jordan et al. 2024).
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


class Optimizers:
    """Both optimizers behind one `step`.

    lr_multiplier: of the parameters whose name contains `.ffn.`.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, lr_multiplier: float) -> None:
        self.recipe = recipe
        groups = group_parameters(model)
        self.optimizers: list[torch.optim.Optimizer] = []
        self.rest = [p for (matrix, _), ps in groups.items() if not matrix for p in ps]
        for matrix in (True, False):
            lr = recipe.matrix_lr if matrix else recipe.lr
            parts = [
                {"params": params, "lr": lr * (lr_multiplier if in_ffn else 1.0)}
                for (is_matrix, in_ffn), params in groups.items()
                if is_matrix == matrix
            ]
            if parts and matrix:
                self.optimizers.append(Muon(parts, lr, weight_decay=recipe.weight_decay))
            elif parts:
                self.optimizers.append(
                    torch.optim.AdamW(parts, lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
                )
        self.base = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.flops_a_step = sum(
            orthogonalize_flops(p.numel() // (p.shape[-1] * p.shape[-2]), *p.shape[-2:])
            for (matrix, _), params in groups.items()
            if matrix
            for p in params
        )

    def step(self, factor: float) -> None:
        """Apply the gradients at `factor` times the learning rates, and clear them."""
        if self.recipe.grad_clip:
            # Muon's update has the same size whatever the gradient's.
            torch.nn.utils.clip_grad_norm_(self.rest, self.recipe.grad_clip)
        for optimizer, base in zip(self.optimizers, self.base, strict=True):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad()


def group_parameters(model: nn.Module) -> dict[tuple[bool, bool], list[nn.Parameter]]:
    """Parameters by (is a matrix, is in an FFN)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for module_name, module in model.named_modules():
        matrices = getattr(module, "matrices", ())
        for name, p in module.named_parameters(recurse=False):
            groups[name in matrices, ".ffn." in f".{module_name}."].append(p)
    return dict(groups)


def schedule(share: float, recipe: Recipe) -> float:
    """Warmup-stable-decay over the share of the budget that is spent, in [0, 1].

    Linear warmup, constant, then 1 - sqrt (Hagele et al. 2024).
    """
    if share < recipe.warmup:
        return share / recipe.warmup
    if share > 1 - recipe.decay:
        return 1 - math.sqrt((share - 1 + recipe.decay) / recipe.decay)
    return 1.0
