"""RMSNorm in one pass over memory, forward and backward, as an operator that torch knows.

T rows, D their width, G programs of the backward, each with its own partial sum of dw.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

CONFIGS = (Config.of(warps=4), Config.of(warps=8))
PARTIAL_SUMS = 256  # enough programs to fill a GPU, few enough that their sum is cheap
BLOCK = 1024  # elements of a program at least: attention heads are narrow


@triton.jit
def rms_norm_forward_kernel(
    x_ptr,
    w_ptr,
    y_ptr,
    scale_ptr,
    n_rows,
    width,
    eps,
    stride_xt,
    stride_yt,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """y and scale of BLOCK_T rows."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    mask = (row < n_rows)[:, None] & (d < width)[None, :]
    x = tl.load(x_ptr + row[:, None] * stride_xt + d[None, :], mask=mask, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + d, mask=d < width, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / width + eps)
    tl.store(scale_ptr + row, scale, mask=row < n_rows)
    y = x * scale[:, None] * w[None, :]
    y_row_ptr = y_ptr + row[:, None] * stride_yt
    tl.store(y_row_ptr + d[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def rms_norm_backward_kernel(
    x_ptr,
    w_ptr,
    dy_ptr,
    scale_ptr,
    dx_ptr,
    dw_ptr,
    n_rows,
    width,
    stride_xt,
    stride_yt,
    stride_dxt,
    stride_dwg,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """dx of every n-th BLOCK_T rows, and their sum of dw; n programs."""
    program = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    w = tl.load(w_ptr + d, mask=d < width, other=0.0).to(tl.float32)
    dw = tl.zeros((BLOCK_D,), dtype=tl.float32)
    for start in range(tl.program_id(0) * BLOCK_T, n_rows, tl.num_programs(0) * BLOCK_T):
        row = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_T)
        live = row < n_rows
        mask = live[:, None] & (d < width)[None, :]
        x_row_ptr, dy_row_ptr = x_ptr + row[:, None] * stride_xt, dy_ptr + row[:, None] * stride_yt
        x = tl.load(x_row_ptr + d[None, :], mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_row_ptr + d[None, :], mask=mask, other=0.0).to(tl.float32)
        scale = tl.load(scale_ptr + row, mask=live, other=0.0)[:, None]
        unit = x * scale
        dw += tl.sum(dy * unit, axis=0)
        dyw = dy * w[None, :]
        mean = tl.sum(dyw * unit, axis=1) / width
        dx = scale * (dyw - unit * mean[:, None])
        dx_row_ptr = dx_ptr + row[:, None] * stride_dxt
        tl.store(dx_row_ptr + d[None, :], dx.to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(dw_ptr + program * stride_dwg + d, dw, mask=d < width)


def blocks(width: int) -> dict[str, int]:
    """A whole row, and as many of them as one program takes at a time."""
    block = triton.next_power_of_2(width)
    return {"BLOCK_D": block, "BLOCK_T": max(1, BLOCK // block)}


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """(..., D), as workers.kernels.api.rms_norm says, in float32."""
    y_TD: Tensor = rms_norm_rows(x_D.reshape(-1, x_D.shape[-1]), w_D, eps)[0]
    return y_TD.view(x_D.shape)


@torch.library.custom_op("ffn_nas::rms_norm", mutates_args=())
def rms_norm_rows(x_TD: Tensor, w_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """y (T, D), and the scale of each row, (T,) in float32."""
    n_rows, width = x_TD.shape
    x_TD, w_D = x_TD.contiguous(), w_D.contiguous()
    y_TD, scale_T = torch.empty_like(x_TD), x_TD.new_empty(n_rows, dtype=torch.float32)
    block = blocks(width)

    def run(config: Config) -> None:
        launch(
            rms_norm_forward_kernel,
            triton.cdiv(n_rows, block["BLOCK_T"]),
            config,
            *(x_TD, w_D, y_TD, scale_T, n_rows, width, eps, x_TD.stride(0), y_TD.stride(0)),
            **block,
        )

    if y_TD.numel():
        run(choose("rms_norm_forward", CONFIGS, x_TD, (width,), run))
    return y_TD, scale_T


@rms_norm_rows.register_fake
def _(x_TD: Tensor, w_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x_TD.new_empty(x_TD.shape), x_TD.new_empty(x_TD.shape[0], dtype=torch.float32)


@torch.library.custom_op("ffn_nas::rms_norm_backward", mutates_args=())
def rms_norm_rows_backward(
    dy_TD: Tensor, x_TD: Tensor, w_D: Tensor, scale_T: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients in x and w; that in w is summed in float32."""
    n_rows, width = x_TD.shape
    dy_TD, x_TD, w_D = dy_TD.contiguous(), x_TD.contiguous(), w_D.contiguous()
    dx_TD = torch.empty_like(x_TD)
    if x_TD.numel() == 0:
        return dx_TD, torch.zeros_like(w_D)
    block = blocks(width)
    programs = min(PARTIAL_SUMS, triton.cdiv(n_rows, block["BLOCK_T"]))
    dw_GD = x_TD.new_empty(programs, width, dtype=torch.float32)

    def run(config: Config) -> None:
        launch(
            rms_norm_backward_kernel,
            programs,
            config,
            *(x_TD, w_D, dy_TD, scale_T, dx_TD, dw_GD, n_rows, width),
            *(x_TD.stride(0), dy_TD.stride(0), dx_TD.stride(0), dw_GD.stride(0)),
            **block,
        )

    run(choose("rms_norm_backward", CONFIGS, x_TD, (width,), run))
    return dx_TD, dw_GD.sum(0).to(w_D.dtype)


@rms_norm_rows_backward.register_fake
def _(dy_TD: Tensor, x_TD: Tensor, w_D: Tensor, scale_T: Tensor) -> tuple[Tensor, Tensor]:
    return x_TD.new_empty(x_TD.shape), w_D.new_empty(w_D.shape)


def _context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
    x_TD, w_D, _ = inputs
    ctx.mark_non_differentiable(output[1])
    # Outputs that are kept for backward have no gradient, and zeros for them would be made.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_TD, w_D, output[1])


def _backward(ctx: Any, dy_TD: Tensor, dscale_T: Any) -> tuple[Tensor, Tensor, None]:
    return *rms_norm_rows_backward(dy_TD, *ctx.saved_tensors), None


rms_norm_rows.register_autograd(_backward, setup_context=_context)
