"""Muon: momentum whose update is orthogonalised, for weight matrices (Jordan et al. 2024).

B matrices of one shape, M rows and N columns of each, K the smaller of the two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.orthogonalize import orthogonalize, orthogonalize_flops
from workers.kernels.place import kind
from workers.training.carried import Carried

# Quintic Newton-Schulz towards an orthogonal matrix. One step fewer than usual leaves small
# singular values smaller, and the proxies' losses where they were (docs/recipe.md).
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 4
# Less than the usual 0.95: runs of some hundred steps end lower with it (docs/recipe.md).
MOMENTUM = 0.9
# Per-entry size of a Muon update relative to its learning rate: AdamW's usual (Moonlight,
# arXiv 2502.16982). It does not depend on how the hidden width is cut into experts.
UPDATE_RMS = 0.2
# One matrix in so many is orthogonalised a step, which is most of Muon's cost (docs/recipe.md).
PERIOD = 2
# Numbers orthogonalised at once: they and the products beside them stay in a core's cache.
CHUNK = 1 << 18
CHUNK_ELSEWHERE = 1 << 28  # a bound on memory alone: products beside it take four times as much


def step_flops(batch: int, rows: int, cols: int) -> float:
    """FLOPs of one Muon step of (batch, rows, cols), the mean over the turns."""
    return orthogonalize_flops((batch, rows, cols), NS_STEPS) / PERIOD


Triple = tuple[Tensor, Tensor, Tensor]


class Muon(torch.optim.Optimizer, Carried):
    """Momentum, orthogonalised: w -= lr * update, Nesterov, matrices of one shape as one batch.

    Matrices take turns: a step moves every `PERIOD`th of them, `PERIOD` times as far. The momentum
    of all follows every gradient.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float = MOMENTUM, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.turn = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is given
        """One update of the matrices whose turn it is, of those that have a gradient."""
        for group in self.param_groups:
            self._follow(group)
            by_shape: dict[Any, list[Triple]] = defaultdict(list)
            place = 0  # of a parameter's first matrix among all of the group
            for p in group["params"]:
                first = (self.turn - place) % PERIOD
                place += p.numel() // (p.shape[-2] * p.shape[-1])
                if p.grad is not None:
                    by_shape[p.shape[-2:]].append(self._matrices(p, p.grad, first))
            for (rows, cols), triples in by_shape.items():
                for batch in batches(triples, at_once(triples[0][0]) // (rows * cols)):
                    update(batch, group)
        self.turn += 1

    def carried(self) -> dict[str, float]:
        """Whose turn it is."""
        return {"turn": self.turn}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on with the turns."""
        self.turn = int(numbers["turn"])

    def _follow(self, group: dict[str, Any]) -> None:
        """Move the momenta of all that have a gradient."""
        moved = [p for p in group["params"] if p.grad is not None]
        for p in moved:
            if not self.state[p]:
                zero = torch.zeros_like(p, memory_format=torch.contiguous_format)
                self.state[p]["momentum"] = zero
        momenta, grads = [self.state[p]["momentum"] for p in moved], [p.grad for p in moved]
        if moved:
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])

    def _matrices(self, p: Tensor, grad: Tensor, first: int) -> Triple:
        """Weights, gradients and momenta of a parameter's matrices whose turn it is."""
        state = self.state[p]
        shape = (-1, *p.shape[-2:])
        turn = slice(first, None, PERIOD)
        return (
            p.view(shape)[turn],
            grad.reshape(shape)[turn],
            state["momentum"].view(shape)[turn],
        )


def at_once(like: Tensor) -> int:
    """Numbers orthogonalised at once where `like` lies: a GPU takes all matrices of a shape."""
    return CHUNK if kind(like) == "cpu" else CHUNK_ELSEWHERE


def batches(triples: list[Triple], size: int) -> Iterator[list[Triple]]:
    """The same matrices in lists of about `size` each; at least one a list."""
    batch: list[Triple] = []
    room = size
    for w_BMN, grad_BMN, momentum_BMN in triples:
        for start in range(0, len(w_BMN), max(1, size)):
            part = slice(start, start + max(1, size))
            triple = (w_BMN[part], grad_BMN[part], momentum_BMN[part])
            if batch and len(triple[0]) > room:
                yield batch
                batch, room = [], size
            batch.append(triple)
            room -= len(triple[0])
    if batch:
        yield batch


def update(batch: list[Triple], group: dict[str, Any]) -> None:
    """One Muon step of a few matrices of one shape."""
    weights, grads, momenta = (_pieces(tensors) for tensors in zip(*batch, strict=True))
    directions = torch._foreach_lerp(grads, momenta, group["momentum"])
    if directions[0].dim() == 2:
        all_BMN = torch.stack(directions)
    else:
        all_BMN = directions[0] if len(directions) == 1 else torch.cat(directions)
    lr = group["lr"] * PERIOD
    step = lr * UPDATE_RMS * math.sqrt(max(all_BMN.shape[1:]))
    update_BMN = orthogonalize(all_BMN, NS_COEFFICIENTS, NS_STEPS)
    if group["weight_decay"]:
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
    if isinstance(step, Tensor):  # in a CUDA graph, whose rates change
        update_BMN = update_BMN * step
        step = 1.0
    if weights[0].dim() == 2:  # of the weights' strides, as grouped operations want them
        updates = update_BMN.contiguous().unbind(0)
    else:
        updates = update_BMN.split([len(w) for w in weights])
    torch._foreach_add_(weights, updates, alpha=-step)


def _pieces(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The same matrices, (B, M, N) each; on a GPU each apart, (M, N), for its grouped operations
    take together what lies in one piece alone, and anything else one by one."""
    if kind(tensors[0]) == "cpu":
        return list(tensors)
    return [x_MN for x_BMN in tensors for x_MN in x_BMN.unbind(0)]
