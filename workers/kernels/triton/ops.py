"""The Triton forms as operators that torch knows: autograd, fake tensors, FLOP formulas.

All that dispatch hands out is named here; fused operations have a file each. The same vocabulary
as workers.kernels.torch.grouped and workers.kernels.torch.rows; FLOPs are counted as they are there. `end_B`
is the cumulative sum of the experts' counts.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from workers.kernels.triton import grouped, rows
from workers.kernels.triton.cross_entropy import linear_cross_entropy
from workers.kernels.triton.expert_ffn import expert_ffn
from workers.kernels.triton.product_key import MOST_CHOICES, product_key_search
from workers.kernels.triton.rms_norm import rms_norm

__all__ = [
    "MOST_CHOICES",
    "expert_ffn",
    "grouped_mm",
    "linear_cross_entropy",
    "product_key_search",
    "rms_norm",
    "row_dot",
    "row_sum",
]


@torch.library.custom_op("ffn_nas::grouped_mm", mutates_args=())
def grouped_mm(x_PI: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    """(P, O): y[p] = x[p] @ w[expert of p]."""
    return grouped.grouped_product(x_PI, w_BIO, end_B)


@grouped_mm.register_fake
def _(x_PI: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    return x_PI.new_empty(x_PI.shape[0], w_BIO.shape[2])


@torch.library.custom_op("ffn_nas::grouped_mm_weight_gradient", mutates_args=())
def grouped_mm_weight_gradient(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    """(B, I, O), in w's layout."""
    return grouped.grouped_weight_gradient(x_PI, dy_PO, w_BIO, end_B)


@grouped_mm_weight_gradient.register_fake
def _(x_PI: Tensor, dy_PO: Tensor, w_BIO: Tensor, end_B: Tensor) -> Tensor:
    return torch.empty_like(w_BIO)


def _grouped_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _grouped_backward(ctx: Any, dy_PO: Tensor) -> tuple[Tensor | None, ...]:
    x_PI, w_BIO, end_B = ctx.saved_tensors
    dx_PI = dw_BIO = None
    if ctx.needs_input_grad[0]:
        dx_PI = grouped_mm(dy_PO, w_BIO.transpose(1, 2), end_B)
    if ctx.needs_input_grad[1]:
        dw_BIO = grouped_mm_weight_gradient(x_PI, dy_PO, w_BIO, end_B)
    return dx_PI, dw_BIO, None


grouped_mm.register_autograd(_grouped_backward, setup_context=_grouped_context)


@torch.library.custom_op("ffn_nas::row_sum", mutates_args=())
def row_sum(
    weight_P: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor
) -> Tensor:
    """(T, D): each token's weighted rows, summed."""
    return rows.weighted_row_sum(weight_P, table_ND, row_P, start_T)


@row_sum.register_fake
def _(
    weight_P: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor
) -> Tensor:
    return table_ND.new_empty(start_T.shape[0], table_ND.shape[1])


@torch.library.custom_op("ffn_nas::row_dot", mutates_args=())
def row_dot(
    x_TD: Tensor,
    table_ND: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    known_P: Tensor | None = None,
) -> Tensor:
    """(P,): each pair's x . row; a copy of `known_P` where the caller has them."""
    if known_P is not None:
        return known_P.clone()
    return rows.paired_row_dot(x_TD, table_ND, row_P, token_P)


@row_dot.register_fake
def _(
    x_TD: Tensor,
    table_ND: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    known_P: Tensor | None = None,
) -> Tensor:
    return x_TD.new_empty(row_P.shape[0]) if known_P is None else torch.empty_like(known_P)


@torch.library.custom_op("ffn_nas::row_gradient", mutates_args=())
def row_gradient(
    weight_P: Tensor, x_TD: Tensor, row_P: Tensor, token_P: Tensor, n_rows: int
) -> Tensor:
    """(N, D): weight[p] * x[token p] summed into row p."""
    return rows.row_gradient(weight_P, x_TD, row_P, token_P, n_rows)


@row_gradient.register_fake
def _(weight_P: Tensor, x_TD: Tensor, row_P: Tensor, token_P: Tensor, n_rows: int) -> Tensor:
    return x_TD.new_empty(n_rows, x_TD.shape[1])


def _row_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _row_sum_backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
    weight_P, table_ND, row_P, token_P, start_T = ctx.saved_tensors
    d_weight_P = d_table_ND = None
    if ctx.needs_input_grad[0]:
        d_weight_P = row_dot(dy_TD, table_ND, row_P, token_P, start_T)
    if ctx.needs_input_grad[1]:
        d_table_ND = row_gradient(weight_P, dy_TD, row_P, token_P, table_ND.shape[0])
    return d_weight_P, d_table_ND, None, None, None


def _row_dot_backward(ctx: Any, dy_P: Tensor) -> tuple[Tensor | None, ...]:
    x_TD, table_ND, row_P, token_P, start_T = ctx.saved_tensors
    dx_TD = d_table_ND = None
    if ctx.needs_input_grad[0]:
        dx_TD = row_sum(dy_P, table_ND, row_P, token_P, start_T)
    if ctx.needs_input_grad[1]:
        d_table_ND = row_gradient(dy_P, x_TD, row_P, token_P, table_ND.shape[0])
    return dx_TD, d_table_ND, None, None, None, None


row_sum.register_autograd(_row_sum_backward, setup_context=_row_context)
row_dot.register_autograd(_row_dot_backward, setup_context=_row_context)

OPS = torch.ops.ffn_nas


@register_flop_formula(OPS.grouped_mm)
def _(x_shape: Any, w_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(x_shape) * w_shape[2]


@register_flop_formula(OPS.grouped_mm_weight_gradient)
def _(x_shape: Any, dy_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(x_shape) * dy_shape[1]


@register_flop_formula(OPS.row_sum)
def _(weight_shape: Any, table_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(weight_shape) * table_shape[1]


@register_flop_formula(OPS.row_dot)
def _(
    x_shape: Any,
    table_shape: Any,
    row_shape: Any,
    token_shape: Any,
    start_shape: Any,
    known_shape: Any = None,
    **options: Any,
) -> int:
    return 0 if known_shape is not None else 2 * prod(row_shape) * table_shape[1]


@register_flop_formula(OPS.row_gradient)
def _(weight_shape: Any, x_shape: Any, *rest: Any, **options: Any) -> int:
    return 2 * prod(weight_shape) * x_shape[1]
