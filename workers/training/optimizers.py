"""Muon for the weight matrices, row-wise Adam for tables, AdamW for the rest.

Layers declare which of their parameters are matrices and which are tables
(`workers.layers.declared`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from search_space.contract import Recipe
from search_space.rates import Rates
from workers.kernels.place import kind as kind_of
from workers.layers.declared import Declared, declared
from workers.training import muon
from workers.training.row_adam import RowAdam, coalesced
from workers.training.shards import is_sharded, local, placed_as, total_norm

BETAS = (0.9, 0.99)


class Kind(StrEnum):
    """What a parameter is to the optimizers."""

    MATRIX = "matrix"
    TABLE = "table"
    REST = "rest"


class Optimizers:
    """The optimizers behind one `step`.

    rates: before the schedule's factor.
    lr_multiplier: of the design's parameters.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, rates: Rates, lr_multiplier: float
    ) -> None:
        self.recipe = recipe
        sharded = any(is_sharded(p) for p in model.parameters())
        # A GPU would be asked how many rows a gradient has.
        on_cpu = all(kind_of(p) == "cpu" for p in model.parameters())
        allow_sparse_gradients(model, on_cpu and not sharded)
        groups = group_parameters(model)
        self.optimizers: list[torch.optim.Optimizer] = []
        self.clipped = [p for (kind, _), ps in groups.items() if kind != Kind.MATRIX for p in ps]
        for kind in Kind:
            lr = rates.matrix_lr if kind is Kind.MATRIX else rates.lr
            parts: list[dict[str, Any]] = [
                {"params": params, "lr": lr * (lr_multiplier if is_searched else 1.0)}
                for (its_kind, is_searched), params in groups.items()
                if its_kind is kind
            ]
            if parts:
                self.optimizers.append(_optimizer(kind, parts, lr, recipe.weight_decay, sharded))
        self.base = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.flops_a_step = sum(
            muon.step_flops(p.numel() // (p.shape[-1] * p.shape[-2]), *p.shape[-2:])
            for (kind, _), params in groups.items()
            if kind is Kind.MATRIX
            for p in params
        )

    def state_of(self, p: nn.Parameter) -> dict[str, torch.Tensor]:
        """The moments of a parameter by name; empty before its first step."""
        return next((dict(o.state[p]) for o in self.optimizers if p in o.state), {})

    def set_state_of(self, p: nn.Parameter, moments: dict[str, torch.Tensor]) -> None:
        """Put moments in place of the parameter's own."""
        for optimizer in self.optimizers:
            if any(p is own for group in optimizer.param_groups for own in group["params"]):
                optimizer.state[p] = {name: placed_as(m, p) for name, m in moments.items()}

    def step(self, factor: float | Tensor) -> None:
        """Apply the gradients at `factor` times the learning rates, and clear them.

        factor: a tensor where the step may be done again with another one: in a CUDA graph.
        """
        if self.recipe.grad_clip:
            # Muon's update has the same size whatever the gradient's.
            clip_gradients(self.clipped, self.recipe.grad_clip)
        for optimizer, base in zip(self.optimizers, self.base, strict=True):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad()

    def turn(self) -> int:
        """Which of the steps that differ on the host comes next: whose turn it is with Muon."""
        return next((o.turn % muon.PERIOD for o in self._muons()), 0)

    def passed(self) -> None:
        """A step was done that the optimizers did not see."""
        for optimizer in self._muons():
            optimizer.turn += 1

    def undo(self, turn: int) -> None:
        """A step was begun and not done: it was somebody's turn, who still has it."""
        for optimizer in self._muons():
            optimizer.turn -= (optimizer.turn - turn) % muon.PERIOD
        for each in self.optimizers:
            each.zero_grad()

    def _muons(self) -> list[muon.Muon]:
        return [o for o in self.optimizers if isinstance(o, muon.Muon)]


def _optimizer(
    kind: Kind,
    parts: list[dict[str, Any]],
    lr: float,
    weight_decay: float,
    sharded: bool,
) -> torch.optim.Optimizer:
    # A graph of the step reads the rate from a tensor, which torch's AdamW takes if it is told.
    on_gpu = parts[0]["params"][0].is_cuda
    if sharded and kind is not Kind.REST:
        from workers.training.sharded import ShardedMuon, ShardedRowAdam

        if kind is Kind.MATRIX:
            return ShardedMuon(parts, lr, weight_decay=weight_decay)
        return ShardedRowAdam(parts, lr, betas=BETAS)
    if kind is Kind.MATRIX:
        return muon.Muon(parts, lr, weight_decay=weight_decay)
    if kind is Kind.TABLE:
        return RowAdam(parts, lr, betas=BETAS)
    return torch.optim.AdamW(
        parts, lr, betas=BETAS, weight_decay=0.0, fused=True, capturable=on_gpu
    )


def group_parameters(model: nn.Module) -> dict[tuple[Kind, bool], list[nn.Parameter]]:
    """Parameters by (kind, is the design's)."""
    searched = {
        id(p)
        for ffn in model.modules()
        if getattr(ffn, "searched", False)
        for p in ffn.parameters()
    }
    groups: dict[tuple[Kind, bool], list[nn.Parameter]] = defaultdict(list)
    seen: set[int] = set()  # a tied table is two modules'
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) in seen:
                continue
            seen.add(id(p))
            kind = Kind.REST
            if isinstance(module, Declared):
                kind = Kind.TABLE if name in module.tables else kind
                kind = Kind.MATRIX if name in module.matrices else kind
            groups[kind, id(p) in searched].append(p)
    return dict(groups)


def allow_sparse_gradients(model: nn.Module, allowed: bool = True) -> None:
    """Let tables have sparse gradients, which other optimizers than ours may refuse.

    allowed: not where gradients are summed over processes.
    """
    for _, layer in declared(model):
        layer.sparse_gradients = allowed and bool(layer.tables)


@torch.no_grad()
def clip_gradients(params: Iterable[nn.Parameter], limit: float) -> None:
    """Scale the gradients in place so that their global norm is at most `limit`.

    torch.nn.utils.clip_grad_norm_, which refuses sparse gradients.
    """
    values = []
    for p in params:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = coalesced(p.grad)
            values.append(p.grad.values())
        elif p.grad is not None:
            values.append(p.grad)
    scale = (limit / (total_norm(values) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([local(value) for value in values], scale)
