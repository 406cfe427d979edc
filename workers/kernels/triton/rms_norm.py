"""RMSNorm in one pass over memory, forward and backward, as an operator that torch knows. Its
kernels also take a sum, for `residual_norm`.

T rows, D their width, G programs of the backward, each with its own partial sum of dw.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    added_ptr,
    w_ptr,
    sum_ptr,
    y_ptr,
    narrow_ptr,
    scale_ptr,
    n_rows,
    width,
    eps,
    stride_t,
    ADDED: tl.constexpr,
    WIDE: tl.constexpr,
    NARROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """y and scale of BLOCK_T rows of x, or of x + added, which is then written as well; y in the
    dtype of `y_ptr`, of `narrow_ptr`, or both."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    at = row[:, None] * stride_t + d[None, :]
    mask = (row < n_rows)[:, None] & (d < width)[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if ADDED:
        x += tl.load(added_ptr + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(sum_ptr + at, x.to(sum_ptr.dtype.element_ty), mask=mask)
    w = tl.load(w_ptr + d, mask=d < width, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / width + eps)
    tl.store(scale_ptr + row, scale, mask=row < n_rows)
    y = x * scale[:, None] * w[None, :]
    if WIDE:
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)
    if NARROW:
        tl.store(narrow_ptr + at, y.to(narrow_ptr.dtype.element_ty), mask=mask)


@triton.jit
def rms_norm_backward_kernel(
    x_ptr,
    w_ptr,
    dy_ptr,
    dnarrow_ptr,
    dsum_ptr,
    scale_ptr,
    dx_ptr,
    dadded_ptr,
    dw_ptr,
    n_rows,
    width,
    stride_t,
    stride_dwg,
    WIDE: tl.constexpr,
    NARROW: tl.constexpr,
    SUM: tl.constexpr,
    ADDED: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """dx of every n-th BLOCK_T rows, and their sum of dw; n programs. The gradient of y is that of
    one of its dtypes or the sum of both; to dx is added that of the sum; `dadded` is dx again, in
    its own dtype."""
    program = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    w = tl.load(w_ptr + d, mask=d < width, other=0.0).to(tl.float32)
    dw = tl.zeros((BLOCK_D,), dtype=tl.float32)
    for start in range(tl.program_id(0) * BLOCK_T, n_rows, tl.num_programs(0) * BLOCK_T):
        row = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_T)
        live = row < n_rows
        at = row[:, None] * stride_t + d[None, :]
        mask = live[:, None] & (d < width)[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dy = tl.zeros((BLOCK_T, BLOCK_D), dtype=tl.float32)
        if WIDE:
            dy += tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        if NARROW:
            dy += tl.load(dnarrow_ptr + at, mask=mask, other=0.0).to(tl.float32)
        scale = tl.load(scale_ptr + row, mask=live, other=0.0)[:, None]
        unit = x * scale
        dw += tl.sum(dy * unit, axis=0)
        dyw = dy * w[None, :]
        mean = tl.sum(dyw * unit, axis=1) / width
        dx = scale * (dyw - unit * mean[:, None])
        if SUM:
            dx += tl.load(dsum_ptr + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        if ADDED:
            tl.store(dadded_ptr + at, dx.to(dadded_ptr.dtype.element_ty), mask=mask)
    tl.store(dw_ptr + program * stride_dwg + d, dw, mask=d < width)


def blocks(width: int) -> dict[str, int]:
    """A whole row, and as many of them as one program takes at a time."""
    block = triton.next_power_of_2(width)
    return {"BLOCK_D": block, "BLOCK_T": max(1, BLOCK // block)}


def rms_norm(x_D: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """(..., D), as workers.kernels.api.rms_norm says, in float32."""
    y_TD: Tensor = rms_norm_rows(x_D.reshape(-1, x_D.shape[-1]), w_D, eps)[0]
    return y_TD.view(x_D.shape)


class Normed(NamedTuple):
    """What a forward pass makes; None for what was not asked for.

    sum_TD: x + added.
    y_TD, narrow_TD: its norm, in x's dtype and in another.
    scale_T: 1 / its root mean square, in float32.
    """

    sum_TD: Tensor | None
    y_TD: Tensor | None
    narrow_TD: Tensor | None
    scale_T: Tensor


def forward(
    x_TD: Tensor,
    added_TD: Tensor | None,
    w_D: Tensor,
    eps: float,
    *,
    wide: bool,
    narrow: torch.dtype | None,
) -> Normed:
    """The norm of the rows of x, or of x + added, all contiguous.

    wide: whether in x's dtype.
    narrow: another dtype that it is wanted in.
    """
    n_rows, width = x_TD.shape
    sum_TD = None if added_TD is None else torch.empty_like(x_TD)
    y_TD = torch.empty_like(x_TD) if wide else None
    narrow_TD = None if narrow is None else torch.empty_like(x_TD, dtype=narrow)
    scale_T = x_TD.new_empty(n_rows, dtype=torch.float32)
    block = blocks(width)

    def run(config: Config) -> None:
        launch(
            rms_norm_forward_kernel,
            triton.cdiv(n_rows, block["BLOCK_T"]),
            config,
            *(x_TD, added_TD, w_D.contiguous(), sum_TD, y_TD, narrow_TD, scale_T),
            *(n_rows, width, eps, width),
            ADDED=sum_TD is not None,
            WIDE=wide,
            NARROW=narrow is not None,
            **block,
        )

    if x_TD.numel():
        run(choose("rms_norm_forward", CONFIGS, x_TD, (width,), run))
    return Normed(sum_TD, y_TD, narrow_TD, scale_T)


class Given(NamedTuple):
    """The gradients that come to a norm of rows (T, D), contiguous; None for none.

    dy_TD, dnarrow_TD: of the norm in either dtype; one at least is there.
    dsum_TD: of the sum.
    """

    dy_TD: Tensor | None
    dnarrow_TD: Tensor | None
    dsum_TD: Tensor | None


def backward(
    given: Given,
    x_TD: Tensor,
    w_D: Tensor,
    scale_T: Tensor,
    *,
    programs: int,
    added: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients in x (T, D), the same in the dtype of `added`, and that in w in parts of `programs`
    programs, (G, D) in float32.

    x_TD: what was normed: of a sum, that.
    """
    n_rows, width = x_TD.shape
    dx_TD = torch.empty_like(x_TD)
    dadded_TD = None if added is None else torch.empty_like(x_TD, dtype=added)
    dw_GD = x_TD.new_empty(programs, width, dtype=torch.float32)
    block = blocks(width)

    def run(config: Config) -> None:
        launch(
            rms_norm_backward_kernel,
            programs,
            config,
            *(x_TD, w_D.contiguous(), *given, scale_T, dx_TD, dadded_TD, dw_GD),
            *(n_rows, width, width, width),
            WIDE=given.dy_TD is not None,
            NARROW=given.dnarrow_TD is not None,
            SUM=given.dsum_TD is not None,
            ADDED=dadded_TD is not None,
            **block,
        )

    run(choose("rms_norm_backward", CONFIGS, x_TD, (width,), run))
    return dx_TD, dadded_TD, dw_GD


def programs_of(n_rows: int, width: int) -> int:
    """Of a backward pass: no more than have rows."""
    tiles: int = triton.cdiv(n_rows, blocks(width)["BLOCK_T"])
    return max(1, min(PARTIAL_SUMS, tiles))


@torch.library.custom_op("ffn_nas::rms_norm", mutates_args=())
def rms_norm_rows(x_TD: Tensor, w_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """y (T, D), and the scale of each row, (T,) in float32."""
    made = forward(x_TD.contiguous(), None, w_D, eps, wide=True, narrow=None)
    assert made.y_TD is not None
    return made.y_TD, made.scale_T


@rms_norm_rows.register_fake
def _(x_TD: Tensor, w_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x_TD.new_empty(x_TD.shape), x_TD.new_empty(x_TD.shape[0], dtype=torch.float32)


@torch.library.custom_op("ffn_nas::rms_norm_backward", mutates_args=())
def rms_norm_rows_backward(
    dy_TD: Tensor, x_TD: Tensor, w_D: Tensor, scale_T: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients in x and w; that in w is summed in float32."""
    if x_TD.numel() == 0:
        return torch.empty_like(x_TD), torch.zeros_like(w_D)
    given = Given(dy_TD.contiguous(), None, None)
    programs = programs_of(*x_TD.shape)
    dx_TD, _, dw_GD = backward(given, x_TD.contiguous(), w_D, scale_T, programs=programs)
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
