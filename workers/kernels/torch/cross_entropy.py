"""Linear head and cross-entropy in one, in torch, by chunks of tokens.

T tokens, D model width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workers.kernels.place import kind

# A chunk's logits stay in the processor's cache; on a GPU the chunk only bounds memory.
CHUNK = {"cpu": 256}
CHUNK_ELSEWHERE = 4096


def linear_cross_entropy(x_TD: Tensor, w_VD: Tensor, target_T: Tensor) -> Tensor:
    """A number, as workers.kernels.api.cross_entropy says."""
    keep = torch.is_grad_enabled()
    loss: Tensor = _LinearCrossEntropy.apply(x_TD, w_VD, target_T, keep)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, w_VD: Tensor, target_T: Tensor, keep: bool) -> Tensor:
        wants_x, wants_w = (keep and wants for wants in ctx.needs_input_grad[:2])
        # The loss is made of float32, whatever the products are, and so is a sum over chunks.
        wide = torch.promote_types(x_TD.dtype, torch.float32)
        dx_TD = torch.empty_like(x_TD) if wants_x else None
        dw_VD = torch.empty_like(w_VD, dtype=wide) if wants_w else None
        n_tokens = x_TD.shape[0]
        losses = []
        chunk = CHUNK.get(kind(x_TD), CHUNK_ELSEWHERE)
        for start in range(0, n_tokens, chunk):
            rows = slice(start, start + chunk)
            p_CV = (x_TD[rows] @ w_VD.t()).to(wide)
            losses.append(loss_and_softmax(p_CV, target_T[rows]))
            if dx_TD is None and dw_VD is None:
                continue
            p_CV.scatter_add_(1, target_T[rows, None], p_CV.new_full((len(p_CV), 1), -1.0))
            p_CV = p_CV.to(x_TD.dtype)
            if dx_TD is not None:
                torch.mm(p_CV, w_VD, out=dx_TD[rows])
            if dw_VD is not None:
                _add_product(dw_VD, p_CV.t(), x_TD[rows], first=start == 0)
        ctx.save_for_backward(dx_TD, dw_VD)
        ctx.n_tokens = n_tokens
        return torch.cat(losses).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        scale = dloss / ctx.n_tokens
        dx_TD, dw_VD = (None if g is None else g * scale for g in ctx.saved_tensors)
        return dx_TD, dw_VD, None, None


def _add_product(sum_VD: Tensor, a_VC: Tensor, b_CD: Tensor, *, first: bool) -> None:
    if sum_VD.dtype == a_VC.dtype:
        sum_VD.addmm_(a_VC, b_CD, beta=0.0 if first else 1.0)
    elif first:
        sum_VD.copy_(a_VC @ b_CD)
    else:
        sum_VD.add_(a_VC @ b_CD)


def loss_and_softmax(logit_CV: Tensor, target_C: Tensor) -> Tensor:
    """-log softmax[target], (C,); `logit_CV` becomes its softmax."""
    top_C = logit_CV.amax(1)
    target_logit_C = logit_CV.gather(1, target_C.unsqueeze(1)).squeeze(1)
    torch.softmax(logit_CV, 1, out=logit_CV)
    # The largest share is at least 1 / V, so this log keeps its digits.
    return top_C - target_logit_C - logit_CV.amax(1).log()
