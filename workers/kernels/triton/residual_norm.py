"""A residual sum and its norm in one pass over memory, forward and backward: the kernels of
`rms_norm`.

T rows, D their width, G parts of the gradient in w.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.prepared import prepared
from workers.kernels.triton.rms_norm import Given, backward, forward, programs_of


def residual_norm(
    x_D: Tensor, added_D: Tensor | None, w_D: Tensor, eps: float, wide: bool, narrow: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of (..., D), as workers.kernels.api.residual_norm says; computed in float32."""
    found: tuple[Tensor, ...] = _ResidualNorm.apply(x_D, added_D, prepared(w_D), eps, wide, narrow)
    sum_D, *normed = found
    return sum_D, normed[0], normed[-1]


class _ResidualNorm(torch.autograd.Function):
    """Its outputs are the sum, the norm in x's dtype where `wide` says so, and that in `narrow`.
    Where both are one dtype they share memory: so each reader's gradient comes apart, and they are
    added here."""

    @staticmethod
    def forward(
        ctx: Any,
        x_D: Tensor,
        added_D: Tensor | None,
        w: Tensor,
        eps: float,
        wide: bool,
        narrow: torch.dtype,
    ) -> tuple[Tensor, ...]:
        x_TD = _rows(x_D)
        added_TD = None if added_D is None else _rows(added_D)
        w_D = w if w.dim() == 1 else w[0]
        one, same = not wide, narrow == x_D.dtype
        made = residual_norm_forward(x_TD, added_TD, w_D, eps, wide or same, narrow)
        sum_TD, y_TD, narrow_TD, scale_T = made
        ctx.save_for_backward(x_TD if added_TD is None else sum_TD, w_D, scale_T)
        ctx.added = None if added_D is None else added_D.dtype
        ctx.one, ctx.parts = one, len(w) if w.dim() > 1 else 0
        ctx.set_materialize_grads(False)
        last_TD = y_TD.view_as(y_TD) if same else narrow_TD
        sum_D = x_D.view_as(x_D) if added_D is None else sum_TD.view(x_D.shape)
        return sum_D, *(t.view(x_D.shape) for t in ([] if one else [y_TD])), last_TD.view(x_D.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dsum_D: Tensor | None, *dys: Tensor | None) -> tuple[Tensor | None, ...]:
        x_TD, w_D, scale_T = ctx.saved_tensors
        shape = next(d.shape for d in (dsum_D, *dys) if d is not None)
        dy_D, dnarrow_D = (None, *dys) if ctx.one else dys
        given = [None if d is None else _rows(d) for d in (dy_D, dnarrow_D, dsum_D)]
        if dy_D is None and dnarrow_D is None:  # nobody has read the norm
            dadded = None if ctx.added is None or dsum_D is None else dsum_D.to(ctx.added)
            return dsum_D, dadded, *[None] * 4
        own = x_TD.dtype if ctx.added is None else ctx.added
        dx_TD, dadded_TD, dw = residual_norm_backward(*given, x_TD, w_D, scale_T, own, ctx.parts)
        dx_D = dx_TD.view(shape)
        dadded_D = dx_D if own == x_TD.dtype else dadded_TD.view(shape)
        return dx_D, None if ctx.added is None else dadded_D, dw, *[None] * 3


def _rows(x_D: Tensor) -> Tensor:
    return x_D.reshape(-1, x_D.shape[-1]).contiguous()


@torch.library.custom_op("ffn_nas::residual_norm", mutates_args=())
def residual_norm_forward(
    x_TD: Tensor,
    added_TD: Tensor | None,
    w_D: Tensor,
    eps: float,
    wide: bool,
    narrow: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum, its norm in x's dtype and in another one, (T, D) each, and the scale of each row,
    (T,) in float32; (0,) for what is not wanted: no sum without `added`, and one norm alone where
    both dtypes are one."""
    other = None if narrow == x_TD.dtype else narrow
    made = forward(x_TD, added_TD, w_D, eps, wide=wide, narrow=other)
    sum_TD, y_TD, narrow_TD, scale_T = made
    none = (x_TD.new_empty(0) for _ in range(3))
    sum_TD, y_TD, narrow_TD = (next(none) if t is None else t for t in (sum_TD, y_TD, narrow_TD))
    return sum_TD, y_TD, narrow_TD, scale_T


@residual_norm_forward.register_fake
def _(
    x_TD: Tensor,
    added_TD: Tensor | None,
    w_D: Tensor,
    eps: float,
    wide: bool,
    narrow: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def made(wanted: bool, dtype: torch.dtype) -> Tensor:
        return x_TD.new_empty(x_TD.shape, dtype=dtype) if wanted else x_TD.new_empty(0)

    return (
        made(added_TD is not None, x_TD.dtype),
        made(wide, x_TD.dtype),
        made(narrow != x_TD.dtype, narrow),
        x_TD.new_empty(x_TD.shape[0], dtype=torch.float32),
    )


@torch.library.custom_op("ffn_nas::residual_norm_backward", mutates_args=())
def residual_norm_backward(
    dy_TD: Tensor | None,
    dnarrow_TD: Tensor | None,
    dsum_TD: Tensor | None,
    x_TD: Tensor,
    w_D: Tensor,
    scale_T: Tensor,
    added: torch.dtype,
    parts: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in x, the same in the dtype `added`, (0,) where that is x's, and in w, (D,), or
    (G, D) in G `parts`, 0 for their sum, which is in float32.

    x_TD: what was normed.
    """
    other = None if added == x_TD.dtype else added
    programs = parts or programs_of(*x_TD.shape)
    given = Given(dy_TD, dnarrow_TD, dsum_TD)
    dx_TD, dadded_TD, dw = backward(given, x_TD, w_D, scale_T, programs=programs, added=other)
    dw = dw if parts else dw.sum(0)
    none = x_TD.new_empty(0)
    return dx_TD, none if dadded_TD is None else dadded_TD, dw.to(w_D.dtype)


@residual_norm_backward.register_fake
def _(
    dy_TD: Tensor | None,
    dnarrow_TD: Tensor | None,
    dsum_TD: Tensor | None,
    x_TD: Tensor,
    w_D: Tensor,
    scale_T: Tensor,
    added: torch.dtype,
    parts: int,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (0,) if added == x_TD.dtype else x_TD.shape
    dw = w_D.new_empty((parts, *w_D.shape) if parts else w_D.shape)
    return torch.empty_like(x_TD), x_TD.new_empty(shape, dtype=added), dw
