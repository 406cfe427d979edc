"""Adam whose step on a sparse gradient costs the touched rows alone.

N rows of a table, D their width, U rows that the gradient holds, C of them at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

# A few rows at a time: what is read of them is used again from cache.
CHUNK_ELEMENTS = 1 << 18


class RowAdam(torch.optim.Optimizer):
    """AdamW without weight decay, for tables of rows (..., D).

    A dense gradient is AdamW's step. A sparse one (a COO tensor of the table's shape) moves the
    rows it holds and their moments; other rows stand still, momentum included ("lazy" Adam).

    The bias correction counts a row's own steps: after n of them a row has moved as AdamW moves
    it in n steps, whenever they came. By the steps of the whole table, as torch.optim.SparseAdam
    counts, a row that is first touched late would take steps of up to twice the learning rate
    while its moments fill. (SparseAdam refuses dense gradients, too, and its step on 50,000 rows
    of 256 took ten times the fused dense step of their whole table of 262,144.)
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is given
        """Apply the gradients."""
        for group in self.param_groups:
            whole = []
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                if state["step"].dim() > 1:  # of a training in several processes
                    state["step"] = state["step"].reshape(-1)
                if p.grad.is_sparse or state["step"].dim():
                    step_rows(p, touched_rows(p.grad), state, group)
                else:
                    whole.append((p, p.grad, state))
            if whole:
                step_all(whole, group)


def step_all(tables: list[tuple[Tensor, Tensor, dict[str, Tensor]]], group: dict[str, Any]) -> None:
    """All rows have done the same steps: AdamW itself, of all such tables together.

    tables: each with its gradient and its moments.
    """
    given, gradients, states = zip(*tables, strict=True)
    place = given[0].device
    adamw(
        list(given),
        list(gradients),
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=place.type in ("cpu", "cuda"),
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=0.0,
        eps=group["eps"],
        maximize=False,
        capturable=place.type == "cuda",
    )


def step_rows(
    p: Tensor, touched: tuple[Tensor, Tensor], state: dict[str, Tensor], group: dict[str, Any]
) -> None:
    """Rows have done different numbers of steps: `step` becomes (N,).

    touched: as `touched_rows` gives them.

    p -= lr * (m / b1) / (sqrt(v / b2) + eps), with both sides of the fraction times sqrt(b2).
    """
    width, (beta1, beta2) = p.shape[-1], group["betas"]
    table_ND, mean_ND, square_ND = (
        x.view(-1, width) for x in (p, state["exp_avg"], state["exp_avg_sq"])
    )
    if not state["step"].dim():
        state["step"] = state["step"].repeat(len(table_ND))
    row_U, g_UD = touched
    step_U = state["step"].index_select(0, row_U) + 1
    state["step"].index_copy_(0, row_U, step_U)
    # In double: 1 - beta^n is a small difference.
    root_U1 = (1 - beta2 ** step_U.double()).sqrt().unsqueeze(1)
    scale_U1 = -group["lr"] * root_U1 / (1 - beta1 ** step_U.double()).unsqueeze(1)
    parts = (row_U, g_UD, scale_U1.to(p.dtype), (group["eps"] * root_U1).to(p.dtype))
    chunk = max(1, CHUNK_ELEMENTS // width)
    for row_C, g_CD, scale_C1, eps_C1 in zip(*(x.split(chunk) for x in parts), strict=True):
        mean_CD = mean_ND.index_select(0, row_C).lerp_(g_CD, 1 - beta1)
        mean_ND.index_copy_(0, row_C, mean_CD)
        square_CD = square_ND.index_select(0, row_C)
        square_CD.mul_(beta2).addcmul_(g_CD, g_CD, value=1 - beta2)
        square_ND.index_copy_(0, row_C, square_CD)
        update_CD = mean_CD.mul_(scale_C1).div_(square_CD.sqrt_().add_(eps_C1))
        # Not index_add_: on several threads that sorts over all N rows.
        table_ND.index_copy_(0, row_C, update_CD.add_(table_ND.index_select(0, row_C)))


def touched_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows a table's gradient (..., D) holds, (U,), each once, and their values, (U, D); all
    rows of a dense one."""
    if not gradient.is_sparse:
        g_ND = gradient.reshape(-1, gradient.shape[-1])
        return torch.arange(len(g_ND), device=gradient.device), g_ND
    gradient = coalesced(gradient)
    return _flat_rows(gradient), gradient.values()


def coalesced(gradient: Tensor) -> Tensor:
    """A sparse gradient with each row once; the same memory where that is so already.

    Autograd forgets that a gradient is coalesced, and to do it again costs as much as the step.
    """
    row_U = _flat_rows(gradient)
    if not (row_U[1:] > row_U[:-1]).all():
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        gradient._indices(),
        gradient._values(),
        gradient.shape,
        is_coalesced=True,
        check_invariants=False,
    )


def _flat_rows(gradient: Tensor) -> Tensor:
    row_U, *rest = gradient._indices().unbind(0)
    for size, index_U in zip(gradient.shape[1:-1], rest, strict=True):
        row_U = row_U * size + index_U
    return row_U
