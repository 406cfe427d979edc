"""Normalisation of product-key queries, without learned scales (the sub-keys have them).

T tokens, H heads, C width of a query.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.layers.declared import Declared

MOMENTUM = 0.1
EPS = 1e-5


class QueryNorm(Declared):
    """`batch`: each feature over the tokens of the batch in training, by running statistics in
    evaluation. `layer`: each query over its features. `none`: as it is.

    PKM and PEER find that `batch` spreads the reads over more experts. A training batch of one
    token has no variance and is normalised as in evaluation (ours).
    """

    def __init__(self, kind: str, heads: int, key_dim: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "batch":
            self.register_buffer("mean_Q", torch.zeros(heads * key_dim))
            self.register_buffer("var_Q", torch.ones(heads * key_dim))

    def forward(self, query_THC: Tensor) -> Tensor:
        """(T, H, C) -> (T, H, C)."""
        if self.kind == "none":
            return query_THC
        if self.kind == "layer":
            return F.layer_norm(query_THC, query_THC.shape[2:], eps=EPS)
        by_batch = self.training and len(query_THC) > 1
        return F.batch_norm(
            query_THC.flatten(1),
            self.mean_Q,
            self.var_Q,
            training=by_batch,
            momentum=MOMENTUM,
            eps=EPS,
        ).view_as(query_THC)
