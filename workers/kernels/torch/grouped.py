"""Grouped matrix product in torch: a product an expert.

P rows (token, expert pairs sorted by expert), B experts, I and O inner and outer widths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.pairs import Loads
from workers.kernels.switch import onednn


def grouped_mm(x_PI: Tensor, w_BIO: Tensor, loads: Loads) -> Tensor:
    """(P, O), as workers.kernels.api.grouped says."""
    y_PO: Tensor = _GroupedMM.apply(x_PI, w_BIO, loads.listed)
    return y_PO


class _GroupedMM(torch.autograd.Function):
    # A product an expert beats padding to the largest: loads are uneven, and on a CPU
    # even 16-row products run near the machine's rate.
    @staticmethod
    def forward(ctx: Any, x_PI: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(x_PI, w_BIO)
        ctx.counts = counts
        return product(x_PI, w_BIO, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_PO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_PI, w_BIO = ctx.saved_tensors
        dx_PI = dw_BIO = None
        if ctx.needs_input_grad[0]:
            dx_PI = product(dy_PO, w_BIO.transpose(1, 2), ctx.counts)
        if ctx.needs_input_grad[1]:
            dw_BIO = weight_gradient(x_PI, dy_PO, w_BIO, ctx.counts)
        return dx_PI, dw_BIO, None


@onednn(False)  # as workers.kernels.torch.expert_ffn: counts differ from call to call
def product(x_PI: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
    """(P, O)."""
    y_PO = x_PI.new_empty(x_PI.shape[0], w_BIO.shape[2])
    for x, w, y in zip(x_PI.split(counts), w_BIO, y_PO.split(counts), strict=True):
        torch.mm(x, w, out=y)
    return y_PO


@onednn(False)
def weight_gradient(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, counts: list[int]) -> Tensor:
    """(B, I, O), 0 for an expert without rows."""
    # The gradient takes the weight's own layout, so that the optimizer reads it in order.
    dw_BIO = torch.empty_like(w_BIO)
    for x, dy, dw in zip(x_PI.split(counts), dy_PO.split(counts), dw_BIO, strict=True):
        torch.mm(x.t(), dy, out=dw)
    return dw_BIO
