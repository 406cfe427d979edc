"""Gradients that several backends share: each brings its forward and its backward pass.

torch and numba do. Triton's forms are operators of torch, which keep a gradient of their own, so
that torch can trace them.

D normalised or model width, T tokens, B experts, G units of an expert, P (token, expert) or
(token, row) pairs, C weights of a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.pairs import Operands, Pairs, Watch

Norm = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
NormBackward = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Passes = tuple[Callable[..., tuple[Any, ...]], Callable[..., None]]
TablePasses = tuple[Callable[..., Tensor], Callable[..., tuple[Tensor | None, Tensor | None]]]


class RMSNorm(torch.autograd.Function):
    """Keeps x, w and one number a row.

    norm: (x, w, eps) -> y and that number.
    norm_backward: (dy, x, w, number) -> the gradients in x and in w.
    """

    @staticmethod
    def forward(
        ctx: Any, x_D: Tensor, w_D: Tensor, eps: float, norm: Norm, norm_backward: NormBackward
    ) -> Tensor:
        """(..., D)."""
        y_D, scale = norm(x_D, w_D, eps)
        ctx.save_for_backward(x_D, w_D, scale)
        ctx.norm_backward = norm_backward
        return y_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_D: Tensor) -> tuple[Tensor | None, ...]:
        """Those of x and w."""
        dx_D, dw_D = ctx.norm_backward(dy_D, *ctx.saved_tensors)
        return dx_D, dw_D, None, None, None


def table_read(
    passes: TablePasses,
    first: Tensor,
    table: Tensor,
    pairs: tuple[Tensor, ...],
    sparse: bool,
    known: Tensor | None = None,
) -> Tensor:
    """`row_sum` or `row_dot` of workers.kernels.api.rows, differentiable once in first and table.

    passes: (first, rows of the table, *pairs) -> the result; and (its gradient, first, table,
        pairs, sparse, which of the two are wanted) -> the gradients in first and in the table.
    first: the weights or the tokens.
    pairs: in the order that the passes want.
    known: the result, where the caller has it.
    """
    y: Tensor = _TableRead.apply(first, table, pairs, sparse, known, passes)
    return y


class _TableRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, table: Tensor, *rest: Any) -> Tensor:
        pairs, ctx.sparse, known, (run, ctx.backward_pass) = rest
        first, table = first.contiguous(), table.contiguous()
        ctx.save_for_backward(first, table, *pairs)
        y: Tensor = run(first, table.flatten(0, -2), *pairs) if known is None else known.clone()
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        first, table, *pairs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        grads = ctx.backward_pass(dy.contiguous(), first, table, pairs, ctx.sparse, wanted)
        return *grads, *[None] * 4


def expert_ffn(
    passes: Passes, given: Operands, pairs: Pairs, activation: str, watch: Watch | None
) -> Tensor:
    """(T, D), differentiable once in what is given, as api.expert_ffn.

    passes: (given, pairs, activation, keep, watch) -> y, the pre-activations by key and by gate,
        (P, G) each where `keep` says so, and anything for backward; and (dy, kept, pairs, anything,
        activation, gradients) -> None, which writes them.
    """
    keep = torch.is_grad_enabled()
    y_TD: Tensor = _ExpertFFN.apply(*given, pairs, activation, keep, watch, passes)
    return y_TD


class _ExpertFFN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, pairs, activation, keep, watch, (forward, ctx.backward_pass) = arguments
        keep = keep and any(ctx.needs_input_grad)
        y_TD: Tensor
        y_TD, key_PG, gate_PG, ctx.tiles = forward(
            Operands(*tensors), pairs, activation, keep, watch
        )
        ctx.save_for_backward(*tensors, key_PG, gate_PG)
        ctx.pairs, ctx.activation = pairs, activation
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        grads = Gradients.of(ctx.needs_input_grad, kept, ctx.pairs)
        ctx.backward_pass(dy_TD.contiguous(), kept, ctx.pairs, ctx.tiles, ctx.activation, grads)
        return grads.x_TD, grads.keys, grads.gates, grads.values, grads.weight, *[None] * 5


@dataclass(frozen=True)
class Gradients:
    """Room for the gradients of those inputs of an expert FFN that want one."""

    x_TD: Tensor | None
    keys: Tensor | None
    gates: Tensor | None
    values: Tensor | None
    weight: Tensor | None

    @classmethod
    def of(cls, wanted: tuple[bool, ...], tensors: tuple[Any, ...], pairs: Pairs) -> Gradients:
        """Zero where nothing will be written: x, and the experts that nobody reads."""
        grads = [
            torch.empty_like(x) if wants and x is not None else None
            for wants, x in zip(wanted[:5], tensors[:5], strict=True)
        ]
        if grads[0] is not None and pairs.token_P is not None:
            grads[0].zero_()
        n_pairs = sum(pairs.counts)
        if grads[4] is not None and n_pairs < len(grads[4]):
            grads[4][n_pairs:] = 0  # pairs that are none have a gradient, for somebody adds it up
        unread = [expert for expert, count in enumerate(pairs.counts) if not count]
        for grad_BGD in grads[1:4]:
            if unread and grad_BGD is not None:
                grad_BGD[unread] = 0
        return cls(*grads)
