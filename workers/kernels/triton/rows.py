"""Sparse reads of a table of rows: the kernels, and operators of them that torch knows.

N rows of the table, D their width, T tokens, P (token, row) pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.api.flops import count
from workers.kernels.row_order import RowOrder
from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.row_gradient import row_gradient, rows_contiguous
from workers.kernels.triton.tune import choose

# One warp a program, so that many read at once: four take three to four times as long on an H100.
SUM_CONFIGS = (
    Config.of(BLOCK_P=8, BLOCK_D=128, warps=1),
    Config.of(BLOCK_P=4, BLOCK_D=256, warps=1),
    Config.of(BLOCK_P=4, BLOCK_D=1024, warps=4),
)
DOT_CONFIGS = (
    Config.of(BLOCK_P=16, BLOCK_D=128, warps=4),
    Config.of(BLOCK_P=8, BLOCK_D=256, warps=4),
    Config.of(BLOCK_P=32, BLOCK_D=64, warps=4),
)


@triton.jit
def row_sum_kernel(
    table_ptr,
    weight_ptr,
    row_ptr,
    start_ptr,
    y_ptr,
    n_starts,
    n_pairs,
    width,
    stride_n,
    stride_yt,
    WEIGHT: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """BLOCK_D columns of a token's weighted sum."""
    token = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    first = tl.load(start_ptr + token)
    end = tl.load(start_ptr + token + 1, mask=token + 1 < n_starts, other=n_pairs)
    acc = tl.zeros((BLOCK_D,), dtype=tl.float32)
    for start in range(first, end, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        live = pair < end
        row = tl.load(row_ptr + pair, mask=live, other=0).to(tl.int64)
        values = tl.load(
            table_ptr + row[:, None] * stride_n + d[None, :],
            mask=live[:, None] & (d < width)[None, :],
            other=0.0,
        ).to(tl.float32)
        if WEIGHT == "pair":
            weight = tl.load(weight_ptr + pair, mask=live, other=0.0).to(tl.float32)
            values = weight[:, None] * values
        elif WEIGHT == "row":
            weight = tl.load(weight_ptr + row, mask=live, other=0.0).to(tl.float32)
            values = weight[:, None] * values
        acc += tl.sum(values, axis=0)
    tl.store(y_ptr + token * stride_yt + d, acc.to(y_ptr.dtype.element_ty), mask=d < width)


@triton.jit
def row_dot_kernel(
    x_ptr,
    table_ptr,
    row_ptr,
    token_ptr,
    y_ptr,
    n_pairs,
    width,
    stride_xt,
    stride_n,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """The dot products of BLOCK_P pairs."""
    pair = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pair < n_pairs
    row = tl.load(row_ptr + pair, mask=live, other=0).to(tl.int64)
    token = tl.load(token_ptr + pair, mask=live, other=0).to(tl.int64)
    acc = tl.zeros((BLOCK_P,), dtype=tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        mask = live[:, None] & (d < width)[None, :]
        x = tl.load(x_ptr + token[:, None] * stride_xt + d[None, :], mask=mask, other=0.0)
        values = tl.load(table_ptr + row[:, None] * stride_n + d[None, :], mask=mask, other=0.0)
        acc += tl.sum(x.to(tl.float32) * values.to(tl.float32), axis=1)
    tl.store(y_ptr + pair, acc.to(y_ptr.dtype.element_ty), mask=live)


def weighted_row_sum(
    weight: Tensor | None,
    table_ND: Tensor,
    row_P: Tensor,
    start_T: Tensor,
    *,
    n_tokens: int | None = None,
    by_row: bool = False,
) -> Tensor:
    """y[t] = sum over the pairs p of t of weight[p] * table[row[p]], (T, D); 0 for no pair.

    weight: (P,), with `by_row` (N,) and that of the row; None for ones.
    start_T: where each token's pairs begin; one more says where the last one's end.
    n_tokens: where there is one more, T.
    """
    width = table_ND.shape[1]
    n_tokens = start_T.numel() if n_tokens is None else n_tokens
    table_ND = rows_contiguous(table_ND)
    weight = None if weight is None else weight.contiguous()
    y_TD = table_ND.new_empty(n_tokens, width)
    if y_TD.numel() == 0:
        return y_TD

    def run(config: Config) -> None:
        launch(
            row_sum_kernel,
            (n_tokens, triton.cdiv(width, config["BLOCK_D"])),
            config,
            table_ND,
            *(weight, row_P, start_T, y_TD, start_T.numel(), row_P.numel(), width),
            *(table_ND.stride(0), y_TD.stride(0)),
            WEIGHT="" if weight is None else "row" if by_row else "pair",
        )

    run(choose("row_sum", SUM_CONFIGS, table_ND, (width,), run))
    return y_TD


def row_sum(weight_P: Tensor, table: Tensor, order: RowOrder, sparse: bool) -> Tensor:
    """(T, D), as workers.kernels.api.rows says; the table's gradient is dense in any case."""
    y_TD: Tensor = sum_of_rows(weight_P, table.flatten(0, -2), *order.given, *_by_row(order))
    return y_TD


def row_dot(
    x_TD: Tensor, table: Tensor, order: RowOrder, known_P: Tensor | None, sparse: bool
) -> Tensor:
    """(P,), as workers.kernels.api.rows says; the table's gradient is dense in any case."""
    y_P: Tensor = dots_of_rows(x_TD, table.flatten(0, -2), *order.given, *_by_row(order), known_P)
    return y_P


def _by_row(order: RowOrder) -> tuple[Tensor | None, Tensor | None]:
    """The rows in order and where each stood, sorted once for all tables that the pairs read; a
    gradient needs them."""
    return order.sorted_narrow if torch.is_grad_enabled() else (None, None)


@torch.library.custom_op("ffn_nas::row_sum", mutates_args=())
def sum_of_rows(
    weight_P: Tensor,
    table_ND: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    sorted_P: Tensor | None = None,
    order_P: Tensor | None = None,
) -> Tensor:
    """(T, D): each token's weighted rows, summed. The rows sorted, and where each stood, are for
    the gradient, which finds them itself where they are left out."""
    return weighted_row_sum(weight_P, table_ND, row_P, start_T)


@sum_of_rows.register_fake
def _(
    weight_P: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, start_T: Tensor, *rest: Any
) -> Tensor:
    return table_ND.new_empty(start_T.shape[0], table_ND.shape[1])


@torch.library.custom_op("ffn_nas::row_dot", mutates_args=())
def dots_of_rows(
    x_TD: Tensor,
    table_ND: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    sorted_P: Tensor | None = None,
    order_P: Tensor | None = None,
    known_P: Tensor | None = None,
) -> Tensor:
    """(P,): x[token p] . table[row p]; a copy of `known_P` where the caller has them."""
    if known_P is not None:
        return known_P.clone()
    n_pairs, width = row_P.numel(), table_ND.shape[1]
    x_TD, table_ND = rows_contiguous(x_TD), rows_contiguous(table_ND)
    y_P = x_TD.new_empty(n_pairs)
    if n_pairs == 0:
        return y_P

    def run(config: Config) -> None:
        launch(
            row_dot_kernel,
            triton.cdiv(n_pairs, config["BLOCK_P"]),
            config,
            *(x_TD, table_ND, row_P, token_P, y_P, n_pairs, width),
            *(x_TD.stride(0), table_ND.stride(0)),
        )

    run(choose("row_dot", DOT_CONFIGS, table_ND, (width,), run))
    return y_P


@dots_of_rows.register_fake
def _(
    x_TD: Tensor,
    table_ND: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    start_T: Tensor,
    sorted_P: Tensor | None = None,
    order_P: Tensor | None = None,
    known_P: Tensor | None = None,
) -> Tensor:
    return x_TD.new_empty(row_P.shape[0]) if known_P is None else torch.empty_like(known_P)


def _row_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])


def _row_sum_backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
    weight_P, table_ND, row_P, token_P, start_T, *by_row = ctx.saved_tensors
    d_weight_P = d_table_ND = None
    if ctx.needs_input_grad[0]:
        d_weight_P = dots_of_rows(dy_TD, table_ND, row_P, token_P, start_T)
    if ctx.needs_input_grad[1]:
        d_table_ND = row_gradient(weight_P, dy_TD, row_P, token_P, table_ND.shape[0], *by_row)
    return d_weight_P, d_table_ND, *[None] * 5


def _row_dot_backward(ctx: Any, dy_P: Tensor) -> tuple[Tensor | None, ...]:
    x_TD, table_ND, row_P, token_P, start_T, *by_row = ctx.saved_tensors
    dx_TD = d_table_ND = None
    if ctx.needs_input_grad[0]:
        dx_TD = sum_of_rows(dy_P, table_ND, row_P, token_P, start_T)
    if ctx.needs_input_grad[1]:
        d_table_ND = row_gradient(dy_P, x_TD, row_P, token_P, table_ND.shape[0], *by_row)
    return dx_TD, d_table_ND, *[None] * 6


sum_of_rows.register_autograd(_row_sum_backward, setup_context=_row_context)
dots_of_rows.register_autograd(_row_dot_backward, setup_context=_row_context)
for _operator in ("row_sum", "row_dot"):
    count(getattr(torch.ops.ffn_nas, _operator))
