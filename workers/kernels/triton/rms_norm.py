"""RMSNorm, forward and backward: y = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019).

T rows, D their width, G programs of the backward, each with its own partial sum of dw.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.triton.config import Config, launch
from workers.kernels.triton.tune import choose

CONFIGS = (Config.of(warps=4), Config.of(warps=8))
PARTIAL_SUMS = 256  # enough programs to fill a GPU, few enough that their sum is cheap


@triton.jit
def rms_norm_forward_kernel(
    x_ptr, w_ptr, y_ptr, scale_ptr, width, eps, stride_xt, stride_yt, BLOCK_D: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    x = tl.load(x_ptr + row * stride_xt + d, mask=d < width, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + d, mask=d < width, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    tl.store(scale_ptr + row, scale)
    y = x * scale * w
    tl.store(y_ptr + row * stride_yt + d, y.to(y_ptr.dtype.element_ty), mask=d < width)


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
):
    program = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    w = tl.load(w_ptr + d, mask=d < width, other=0.0).to(tl.float32)
    dw = tl.zeros((BLOCK_D,), dtype=tl.float32)
    for index in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        row = tl.cast(index, tl.int64)
        x = tl.load(x_ptr + row * stride_xt + d, mask=d < width, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * stride_yt + d, mask=d < width, other=0.0).to(tl.float32)
        scale = tl.load(scale_ptr + row)
        unit = x * scale
        dw += dy * unit
        dyw = dy * w
        dx = scale * (dyw - unit * (tl.sum(dyw * unit, axis=0) / width))
        tl.store(dx_ptr + row * stride_dxt + d, dx.to(dx_ptr.dtype.element_ty), mask=d < width)
    tl.store(dw_ptr + program * stride_dwg + d, dw, mask=d < width)


def rms_norm(x_TD: Tensor, w_D: Tensor, eps: float, *, config: Config | None = None) -> Tensor:
    """(T, D) -> (T, D); differentiable once in x and w. The mean is taken in float32."""
    return _RMSNorm.apply(x_TD.contiguous(), w_D.contiguous(), eps, config)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, w_D: Tensor, eps: float, config: Config | None) -> Tensor:
        n_rows, width = x_TD.shape
        y_TD = torch.empty_like(x_TD)
        scale_T = x_TD.new_empty(n_rows, dtype=torch.float32)
        ctx.save_for_backward(x_TD, w_D, scale_T)
        ctx.config = config
        if y_TD.numel() == 0:
            return y_TD

        def run(config: Config) -> None:
            launch(
                rms_norm_forward_kernel,
                n_rows,
                config,
                x_TD,
                *(x_TD, w_D, y_TD, scale_T, width, eps, x_TD.stride(0), y_TD.stride(0)),
                BLOCK_D=triton.next_power_of_2(width),
            )

        run(config or choose("rms_norm_forward", CONFIGS, x_TD, (width,), run))
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_TD, w_D, scale_T = ctx.saved_tensors
        n_rows, width = x_TD.shape
        dy_TD, dx_TD = dy_TD.contiguous(), torch.empty_like(x_TD)
        if x_TD.numel() == 0:
            return dx_TD, torch.zeros_like(w_D), None, None
        dw_GD = x_TD.new_empty(min(PARTIAL_SUMS, n_rows), width, dtype=torch.float32)

        def run(config: Config) -> None:
            launch(
                rms_norm_backward_kernel,
                dw_GD.shape[0],
                config,
                x_TD,
                *(x_TD, w_D, dy_TD, scale_T, dx_TD, dw_GD, n_rows, width),
                *(x_TD.stride(0), dy_TD.stride(0), dx_TD.stride(0), dw_GD.stride(0)),
                BLOCK_D=triton.next_power_of_2(width),
            )

        run(ctx.config or choose("rms_norm_backward", CONFIGS, x_TD, (width,), run))
        return dx_TD, dw_GD.sum(0).to(w_D.dtype), None, None
