"""The optimizers on sharded parameters: the steps that one process would take.

AdamW is element-wise and torch's own takes sharded parameters; here are Muon, which needs whole
matrices, and Adam by rows, which needs to know the rows that any process has touched.

B matrices of one shape, M rows and N columns of each, R rows of a table, D their width.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workers.kernels.api.orthogonalize import orthogonalize
from workers.kernels.row_order import wants_sparse
from workers.training import muon
from workers.training.row_adam import RowAdam, step_all, step_rows
from workers.training.shards import extent, local, whole


class ShardedMuon(muon.Muon):
    """Muon whose processes each move their own part of the weights.

    Whole matrices (experts; queries, keys and values) are orthogonalised where they are. Of one
    that is cut, the direction is gathered, every process orthogonalises it, and takes its part.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is given
        """As Muon's: the same matrices in the same turns."""
        for group in self.param_groups:
            by_shape: dict[Any, list[muon.Triple]] = defaultdict(list)
            place = 0  # of a parameter's first matrix among all of the group
            for p in group["params"]:
                first = (self.turn - place) % muon.PERIOD
                place += p.numel() // (p.shape[-2] * p.shape[-1])
                if p.grad is None:
                    continue
                start, _, dim = extent(p)
                if dim < p.dim() - 2:
                    between = math.prod(p.shape[dim + 1 : -2])
                    first = (first - start * between) % muon.PERIOD
                    triple = self._parts(p, group["momentum"], first)
                    if len(triple[0]):
                        by_shape[p.shape[-2:]].append(triple)
                else:
                    self._step_cut(p, group, first)
            for (rows, cols), triples in by_shape.items():
                for batch in muon.batches(triples, muon.CHUNK // (rows * cols)):
                    muon.update(batch, group)
        self.turn += 1

    def _parts(self, p: Tensor, momentum: float, first: int) -> muon.Triple:
        """As `_matrices`, of the matrices that lie here."""
        state, grad = self.state[p], p.grad
        assert grad is not None
        if not state:
            state["momentum"] = torch.zeros_like(p)
        held, ours = local(state["momentum"]), local(grad)
        held.lerp_(ours, 1 - momentum)
        shape, turn = (-1, *p.shape[-2:]), slice(first, None, muon.PERIOD)
        if not held.numel():
            shape = (0, *p.shape[-2:])
        w_BMN, grad_BMN, momentum_BMN = (t.view(shape)[turn] for t in (local(p), ours, held))
        return w_BMN, grad_BMN, momentum_BMN

    def _step_cut(self, p: Tensor, group: dict[str, Any], first: int) -> None:
        """Move the matrices of a parameter that is cut within them, those whose turn it is."""
        state, grad = self.state[p], p.grad
        assert grad is not None
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        turn = slice(first, None, muon.PERIOD)
        if first >= p.numel() // (p.shape[-2] * p.shape[-1]):
            return
        direction = whole(grad.lerp(state["momentum"], group["momentum"]))
        all_BMN = direction.reshape(-1, *p.shape[-2:])[turn]
        lr = group["lr"] * muon.PERIOD
        step = lr * muon.UPDATE_RMS * math.sqrt(max(p.shape[-2:]))
        update_BMN = torch.zeros_like(direction).reshape(-1, *p.shape[-2:])
        update_BMN[turn] = orthogonalize(all_BMN, muon.NS_COEFFICIENTS, muon.NS_STEPS)
        start, length, dim = extent(p)
        part = update_BMN.view(p.shape).narrow(dim, start, length)
        if group["weight_decay"]:
            kept = torch.ones(len(update_BMN), 1, 1, device=direction.device)
            kept[turn] = 1 - lr * group["weight_decay"]
            local(p).mul_(kept.expand_as(update_BMN).reshape(p.shape).narrow(dim, start, length))
        local(p).add_(part, alpha=-step)


class ShardedRowAdam(RowAdam):
    """RowAdam on the rows that lie here, of gradients that are dense between processes.

    A table that one process would give a sparse gradient moves the rows that any process has read.
    They are known by their gradients, so a row whose gradient is zero was not read, here.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is given
        """Apply the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, p.grad, self.state[p], group)

    def _step(
        self, p: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        g_RD = local(gradient).reshape(-1, p.shape[-1])
        row_U = g_RD.any(1).nonzero().flatten()
        read = torch.tensor(len(row_U), device=p.device)
        dist.all_reduce(read)
        if not state["step"].dim() and wants_sparse(p, int(read)):
            # From here on a number a row, cut as the rows are.
            done = float(state["step"])
            state["step"] = torch.full_like(p[..., 0], done, dtype=torch.float32)
        ours = {name: local(moment) for name, moment in state.items()}
        if not state["step"].dim():
            step_all([(local(p), local(gradient), ours)], group)
            return
        ours["step"] = ours["step"].view(-1)
        step_rows(local(p), (row_U, g_RD.index_select(0, row_U)), ours, group)
