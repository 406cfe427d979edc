"""The gradient of a table whose rows were read: the kernel, and an operator of it that torch knows.

N rows of the table, D their width, T tokens, P (token, row) pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.api.flops import count
from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

# Many pairs a row want them read at once; few want several rows a program, and wide ones one block.
CONFIGS = (
    Config.of(BLOCK_N=4, BLOCK_P=8, BLOCK_D=256, warps=2),
    Config.of(BLOCK_N=1, BLOCK_P=32, BLOCK_D=128, warps=4, nvidia=True),
    Config.of(BLOCK_N=2, BLOCK_P=4, BLOCK_D=1024, warps=4),
)


@triton.jit
def _first_of(row, sorted_ptr, n_pairs, n_steps):
    """Where in what is sorted each row's pairs begin, by halves."""
    low = tl.zeros_like(row)
    high = low + n_pairs
    for _ in range(n_steps):
        middle = (low + high) // 2
        value = tl.load(sorted_ptr + middle, mask=low < high, other=0).to(tl.int32)
        below = (low < high) & (value < row)
        high = tl.where(below, high, middle)
        low = tl.where(below, middle + 1, low)
    return low


@triton.jit
def row_gradient_kernel(
    weight_ptr,
    x_ptr,
    row_ptr,
    order_ptr,
    token_ptr,
    out_ptr,
    n_rows,
    n_pairs,
    n_steps,
    width,
    stride_xt,
    stride_n,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """BLOCK_D columns of BLOCK_N rows' gradients, one row after the other."""
    n = tl.arange(0, BLOCK_N)
    row_N = tl.program_id(0) * BLOCK_N + n
    first_N = _first_of(row_N, row_ptr, n_pairs, n_steps)
    end_N = _first_of(row_N + 1, row_ptr, n_pairs, n_steps)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    for i in range(BLOCK_N):
        row = tl.program_id(0).to(tl.int64) * BLOCK_N + i
        first = tl.sum(tl.where(n == i, first_N, 0), axis=0)
        end = tl.sum(tl.where(n == i, end_N, 0), axis=0)
        acc = tl.zeros((BLOCK_D,), dtype=tl.float32)
        for start in range(first, end, BLOCK_P):
            place = start + tl.arange(0, BLOCK_P)
            live = place < end
            pair = tl.load(order_ptr + place, mask=live, other=0)
            token = tl.load(token_ptr + pair, mask=live, other=0).to(tl.int64)
            weight = tl.load(weight_ptr + pair, mask=live, other=0.0).to(tl.float32)
            x = tl.load(
                x_ptr + token[:, None] * stride_xt + d[None, :],
                mask=live[:, None] & (d < width)[None, :],
                other=0.0,
            )
            acc += tl.sum(weight[:, None] * x.to(tl.float32), axis=0)
        known = tl.where(row < n_rows, width, 0)  # columns of a row that is one
        tl.store(out_ptr + row * stride_n + d, acc.to(out_ptr.dtype.element_ty), mask=d < known)


def rows_contiguous(x_ND: Tensor) -> Tensor:
    """The same, each row's numbers beside each other."""
    return x_ND if x_ND.stride(1) == 1 else x_ND.contiguous()


@torch.library.custom_op("ffn_nas::row_gradient", mutates_args=())
def row_gradient(
    weight_P: Tensor,
    x_TD: Tensor,
    row_P: Tensor,
    token_P: Tensor,
    n_rows: int,
    sorted_P: Tensor | None = None,
    order_P: Tensor | None = None,
) -> Tensor:
    """weight[p] * x[token p] summed into row p of (N, D), the rest 0.

    The pairs are sorted by row (stably) and one program sums one row's: no atomics, so equal
    inputs give equal bits. Each row is written once.
    """
    x_TD, weight_P = rows_contiguous(x_TD), weight_P.contiguous()
    n_pairs, width = row_P.numel(), x_TD.shape[1]
    out_ND = x_TD.new_empty(n_rows, width)
    if out_ND.numel() == 0:
        return out_ND
    if n_pairs == 0:
        return out_ND.zero_()
    if sorted_P is None or order_P is None:
        sorted_P, order_P = torch.sort(row_P, stable=True)

    def run(config: Config) -> None:
        launch(
            row_gradient_kernel,
            (triton.cdiv(n_rows, config["BLOCK_N"]), triton.cdiv(width, config["BLOCK_D"])),
            config,
            *(weight_P, x_TD, sorted_P, order_P, token_P, out_ND),
            *(n_rows, n_pairs, n_pairs.bit_length(), width, x_TD.stride(0), out_ND.stride(0)),
        )

    run(choose("row_gradient", CONFIGS, x_TD, (width,), run))
    return out_ND


@row_gradient.register_fake
def _(
    weight_P: Tensor, x_TD: Tensor, row_P: Tensor, token_P: Tensor, n_rows: int, *rest: Any
) -> Tensor:
    return x_TD.new_empty(n_rows, x_TD.shape[1])


count(torch.ops.ffn_nas.row_gradient)
