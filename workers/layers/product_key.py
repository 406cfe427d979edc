"""Product-key retrieval of single experts (PKM, arXiv 1907.05242; PEER, arXiv 2407.04153).

D model width, T tokens, N experts, R = sqrt(N) sub-keys of a half, H heads, C width of a query,
K choices of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space.methods.product_key import ProductKey
from search_space.spec import FFNSpec
from workers.kernels.api.mixed import unmixed
from workers.kernels.api.product_key import product_key_search
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.query_norm import QueryNorm
from workers.layers.routing import Choices, Selected


class ProductKeySelection(Declared):
    """Expert i = (a, b) scores q1 . c1_a + q2 . c2_b, the halves of a head's q = norm(x W_q).

    Each head takes the top k of the N scores, found among the sums of the top k of each half, and
    weighs them by their softmax or sigmoid. Each head has its own queries and sub-keys; the experts
    are shared. Two heads may pick one expert, and then it counts twice. No loss.

    query_HCD: (H, C, D).
    sub_keys_H2RC: (H, 2, R, C / 2).
    """

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, ProductKey)
        self.knobs = knobs = spec.selection
        self.root = math.isqrt(spec.n_experts)
        self.query_HCD = nn.Parameter(torch.empty(knobs.heads, knobs.key_dim, d_model))
        self.norm = QueryNorm(knobs.query_norm, knobs.heads, knobs.key_dim)
        half = knobs.key_dim // 2
        self.sub_keys_H2RC = nn.Parameter(torch.empty(knobs.heads, 2, self.root, half))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit-variance queries and scores."""
        nn.init.normal_(self.query_HCD, std=1 / math.sqrt(self.query_HCD.shape[2]))
        nn.init.normal_(self.sub_keys_H2RC, std=1 / math.sqrt(self.knobs.key_dim))

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """x_TD (T, D) -> bags of H * K weighted experts a token."""
        dtype = torch.promote_types(x_TD.dtype, torch.float32)
        with unmixed(x_TD.device.type):
            score_HTK, index_HTK = self._search(self._queries(x_TD.to(dtype)))
        index_THK, score_THK = index_HTK.transpose(0, 1), score_HTK.transpose(0, 1)
        weight_THK = score_THK.softmax(2) if self.knobs.gate == "softmax" else score_THK.sigmoid()
        index_TK, weight_TK = index_THK.flatten(1), weight_THK.flatten(1)
        return Selected(Choices(index_TK, weight_TK, None, distinct=self.knobs.k))

    def _queries(self, x_TD: Tensor) -> Tensor:
        """(H * 2, T, C / 2)."""
        heads, key_dim, _ = self.query_HCD.shape
        query_TQ = F.linear(x_TD, self.query_HCD.flatten(0, 1).to(x_TD.dtype))
        query_THC: Tensor = self.norm(query_TQ.view(-1, heads, key_dim))
        return query_THC.view(-1, 2 * heads, key_dim // 2).transpose(0, 1)

    def _search(self, query_STC: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and indices of each head's top k, both (H, T, K). S = 2 H halves."""
        sub_keys_SRC = self.sub_keys_H2RC.flatten(0, 1).to(query_STC.dtype)
        return product_key_search(query_STC, sub_keys_SRC, self.knobs.k)
