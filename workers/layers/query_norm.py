"""Normalisation of product-key queries, without learned scales (the sub-keys have them).

T tokens, H heads, C width of a query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.layers.declared import Declared
from workers.layers.whole_batch import in_one_place, of_batch

MOMENTUM = 0.1
EPS = 1e-5


class QueryNorm(Declared):
    """`batch`: each feature over the tokens of the batch in training, by running statistics in
    evaluation. `layer`: each query over its features. `none`: as it is.

    The running statistics move once an optimizer step, towards those of all tokens that the step
    has learned from; a batch whose gradients are accumulated in parts is normalised in parts, one
    that several processes read as a whole.
    PKM and PEER find that `batch` spreads the reads over more experts. A training batch of one
    token has no variance and is normalised as in evaluation (ours).
    """

    mean_Q: Tensor
    var_Q: Tensor

    def __init__(self, kind: str, heads: int, key_dim: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "batch":
            width = heads * key_dim
            self.register_buffer("mean_Q", torch.zeros(width, dtype=torch.float32))
            self.register_buffer("var_Q", torch.ones(width, dtype=torch.float32))
            self.states = ("mean_Q", "var_Q")

    def forward(self, query_THC: Tensor) -> Tensor:
        """(T, H, C) -> (T, H, C)."""
        if self.kind == "none":
            return query_THC
        if self.kind == "layer":
            return F.layer_norm(query_THC, query_THC.shape[2:], eps=EPS)
        query_TQ = query_THC.flatten(1)
        if not self.training or len(query_TQ) == 1:
            return F.batch_norm(query_TQ, self.mean_Q, self.var_Q, eps=EPS).view_as(query_THC)
        if not in_one_place():
            return self._of_spread_batch(query_TQ).view_as(query_THC)
        # With a momentum of 1 the operation leaves the statistics of this batch alone there.
        mean_Q, var_Q = self.mean_Q.new_zeros(2, len(self.mean_Q)).unbind()
        normed_TQ = F.batch_norm(query_TQ, mean_Q, var_Q, training=True, momentum=1.0, eps=EPS)
        self.count_at_backward(normed_TQ, (len(query_TQ), mean_Q, var_Q))
        return normed_TQ.view_as(query_THC)

    def _of_spread_batch(self, query_TQ: Tensor) -> Tensor:
        """(T, Q) normed by the statistics of all processes' tokens; each counts its own."""
        own_Q = query_TQ.detach().mean(0)
        away_TQ = query_TQ - of_batch(query_TQ.mean(0))
        normed_TQ = away_TQ * (of_batch(away_TQ.square().mean(0)) + EPS).rsqrt()
        self.count_at_backward(normed_TQ, (len(query_TQ), own_Q, query_TQ.detach().var(0)))
        return normed_TQ

    @classmethod
    def settle(cls, layers: Sequence[QueryNorm]) -> None:
        """Move each layer's running mean and unbiased variance."""
        for layer in layers:
            if layer.counted:
                mean_Q, var_Q = pooled(layer.counted)
                layer.mean_Q.mul_(1 - MOMENTUM).add_(MOMENTUM * mean_Q)
                layer.var_Q.mul_(1 - MOMENTUM).add_(var_Q, alpha=MOMENTUM)


def pooled(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance (Q,) of all tokens.

    parts: of each part its number of tokens, mean and unbiased variance.
    """
    if len(parts) == 1:
        return parts[0][1:]
    n_P1 = torch.tensor([[n] for n, _, _ in parts], dtype=torch.float64, device=parts[0][1].device)
    mean_PQ, var_PQ = (torch.stack(part).double() for part in list(zip(*parts, strict=True))[1:])
    mean_Q = (n_P1 * mean_PQ).sum(0) / n_P1.sum()
    squares_Q = ((n_P1 - 1) * var_PQ + n_P1 * (mean_PQ - mean_Q).square()).sum(0)
    return mean_Q.to(parts[0][1]), (squares_Q / (n_P1.sum() - 1)).to(parts[0][2])
