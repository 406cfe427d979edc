"""Muon for the weight matrices, AdamW for the rest, and the warmup-stable-decay schedule.

A matrix parameter is one that its module names in `matrices`; its last two dims are the matrix,
dims before them a batch (experts, or q, k and v).
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import nn

from search_space.contract import Recipe
from workers.muon import Muon, orthogonalize_flops


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
