"""Linear layer and cross-entropy over chunks of tokens: the (T, V) logits never exist at once.

T tokens, C of them a chunk, D width, V vocabulary. Each chunk's logits are a plain matrix product;
the kernel turns them into the loss and, in place, into their own gradient.
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

CONFIGS = (Config.of(BLOCK_V=4096, warps=8), Config.of(BLOCK_V=2048, warps=4))
CHUNK = 1024  # tokens whose logits exist at once


@triton.jit
def cross_entropy_kernel(
    logit_ptr, target_ptr, loss_ptr, vocabulary, stride_t, BLOCK_V: tl.constexpr
):
    """A token's loss; its logits become their own gradient."""
    token = tl.program_id(0).to(tl.int64)
    logit_ptr += token * stride_t
    target = tl.load(target_ptr + token)
    peak = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    chosen = tl.zeros((), tl.float32)
    for start in range(0, vocabulary, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        logit = tl.load(logit_ptr + v, mask=v < vocabulary, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(logit, axis=0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(logit - higher), axis=0)
        # Read here, not by a load of its own: the second pass overwrites it.
        chosen += tl.sum(tl.where(v == target, logit, 0.0), axis=0)
        peak = higher
    tl.store(loss_ptr + token, peak + tl.log(total) - chosen)
    for start in range(0, vocabulary, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        logit = tl.load(logit_ptr + v, mask=v < vocabulary, other=float("-inf")).to(tl.float32)
        p = tl.exp(logit - peak) / total
        gradient = p - tl.where(v == target, 1.0, 0.0)
        tl.store(logit_ptr + v, gradient.to(logit_ptr.dtype.element_ty), mask=v < vocabulary)


def cross_entropy_in_place(logit_CV: Tensor, target_C: Tensor) -> Tensor:
    """Losses (C,) in nats, float32; `logit_CV` becomes softmax - one-hot."""
    loss_C = logit_CV.new_empty(logit_CV.shape[0], dtype=torch.float32)

    def launch_on(logit_CV: Tensor, config: Config) -> None:
        n_rows, vocabulary = logit_CV.shape
        tensors = (logit_CV, target_C, loss_C)
        launch(
            cross_entropy_kernel,
            n_rows,
            config,
            *(*tensors, vocabulary, logit_CV.stride(0)),
        )

    def trial(config: Config) -> None:
        launch_on(logit_CV.clone(), config)

    if loss_C.numel():
        width = (logit_CV.shape[1],)
        launch_on(logit_CV, choose("cross_entropy", CONFIGS, logit_CV, width, trial))
    return loss_C


def linear_cross_entropy(
    x_TD: Tensor, w_VD: Tensor, target_T: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """Mean cross-entropy in nats of logits x w^T against token ids, a float32 number.

    Differentiable once in x and w. Memory is (chunk, V) instead of (T, V); both gradients are made
    in the forward pass. The weight gradient is summed over the chunks in float32.
    """
    keep = torch.is_grad_enabled() and (x_TD.requires_grad or w_VD.requires_grad)
    loss: Tensor = loss_and_gradients(x_TD, w_VD, target_T, chunk, keep)[0]
    return loss


@torch.library.custom_op("ffn_nas::linear_cross_entropy", mutates_args=())
def loss_and_gradients(
    x_TD: Tensor, w_VD: Tensor, target_T: Tensor, chunk: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and with `keep` T times its gradients in x and (float32) in w, else (0,) each."""
    n_tokens = x_TD.shape[0]
    dx_TD = torch.empty_like(x_TD) if keep else x_TD.new_empty(0)
    dw_VD = x_TD.new_zeros(w_VD.shape if keep else 0, dtype=torch.float32)
    total = x_TD.new_zeros((), dtype=torch.float32)
    for start in range(0, n_tokens, chunk):
        part = slice(start, start + chunk)
        grad_CV = x_TD[part] @ w_VD.t()
        total += cross_entropy_in_place(grad_CV, target_T[part]).sum()
        if keep:
            dx_TD[part] = grad_CV @ w_VD
            dw_VD += grad_CV.t() @ x_TD[part]
    return total / n_tokens, dx_TD, dw_VD


@loss_and_gradients.register_fake
def _(
    x_TD: Tensor, w_VD: Tensor, target_T: Tensor, chunk: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dx_TD = torch.empty_like(x_TD) if keep else x_TD.new_empty(0)
    dw_VD = x_TD.new_empty(w_VD.shape if keep else 0, dtype=torch.float32)
    return x_TD.new_empty((), dtype=torch.float32), dx_TD, dw_VD


def _context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x_TD, w_VD, *_ = inputs
    _, dx_TD, dw_VD = output
    ctx.mark_non_differentiable(dx_TD, dw_VD)
    # Outputs that are kept for backward have no gradient, and zeros for them would be made.
    ctx.set_materialize_grads(False)
    # Kept undivided by T: float16 would lose what a loss scale has not lifted yet.
    ctx.save_for_backward(dx_TD, dw_VD)
    ctx.n_tokens, ctx.w_dtype = x_TD.shape[0], w_VD.dtype


def _backward(ctx: Any, dloss: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    dx_TD, dw_VD = ctx.saved_tensors
    scale = dloss.float() / ctx.n_tokens
    dx_TD = (dx_TD.float() * scale).to(dx_TD.dtype)
    return dx_TD, (dw_VD * scale).to(ctx.w_dtype), None, None, None


loss_and_gradients.register_autograd(_backward, setup_context=_context)


count(torch.ops.ffn_nas.linear_cross_entropy)
