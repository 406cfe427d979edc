"""Grouped matrix product: rows sorted by expert, one matrix an expert.

P rows (token, expert pairs sorted by expert), B experts, I and O inner and outer widths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.dispatch import triton_ops


def grouped_mm(x_PI: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
    """y[p] = x[p] @ w[expert of p], for rows sorted by expert.

    x_PI: (P, I).  w_BIO: (B, I, O), of any strides.  counts: rows of each expert, B of them,
    summing to P.  Returns (P, O).  Differentiable once in x and w; FLOPs 2 P I O.
    """
    if len(counts) != w_BIO.shape[0] or sum(counts) != x_PI.shape[0]:
        raise ValueError(
            f"counts must give the {x_PI.shape[0]} rows of {w_BIO.shape[0]} experts: "
            f"got {sum(counts)} rows of {len(counts)}"
        )
    ops = triton_ops(x_PI, w_BIO)
    if ops is not None:
        end_B = torch.tensor(counts, device=x_PI.device).cumsum(0)
        return ops.grouped_mm(x_PI, w_BIO, end_B)
    return _GroupedMM.apply(x_PI, w_BIO, counts)


class _GroupedMM(torch.autograd.Function):
    # A product an expert beats padding to the largest: loads are uneven, and on a CPU
    # even 16-row products run near the machine's rate.
    @staticmethod
    def forward(ctx: Any, x_PI: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(x_PI, w_BIO)
        ctx.counts = counts
        return _product(x_PI, w_BIO, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_PO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_PI, w_BIO = ctx.saved_tensors
        dx_PI = dw_BIO = None
        if ctx.needs_input_grad[0]:
            dx_PI = _product(dy_PO, w_BIO.transpose(1, 2), ctx.counts)
        if ctx.needs_input_grad[1]:
            dw_BIO = _weight_gradient(x_PI, dy_PO, w_BIO, ctx.counts)
        return dx_PI, dw_BIO, None


def _product(x_PI: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
    y_PO = x_PI.new_empty(x_PI.shape[0], w_BIO.shape[2])
    start = 0
    for expert, count in enumerate(counts):
        if count:
            rows = slice(start, start + count)
            torch.mm(x_PI[rows], w_BIO[expert], out=y_PO[rows])
            start += count
    return y_PO


def _weight_gradient(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
    # The gradient takes the weight's own layout, so that the optimizer reads it in order.
    dw_BIO = torch.zeros_like(w_BIO)
    start = 0
    for expert, count in enumerate(counts):
        if count:
            rows = slice(start, start + count)
            torch.mm(x_PI[rows].t(), dy_PO[rows], out=dw_BIO[expert])
            start += count
    return dw_BIO
