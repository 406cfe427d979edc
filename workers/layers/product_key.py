"""Product-key retrieval of single experts (PKM, arXiv 1907.05242; PEER, arXiv 2407.04153).

D model width, T tokens, N experts, R = sqrt(N) sub-keys of a half, H heads, C width of a query,
J = min(K, R) candidates of a half, K choices of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space.spec import FFNSpec, ProductKey
from workers.layers.experts import Experts
from workers.layers.query_norm import QueryNorm
from workers.layers.routing import Bags, Selected


class ProductKeySelection(nn.Module):
    """Expert i = (a, b) scores q1 . c1_a + q2 . c2_b, the halves of a head's q = norm(x W_q).

    Each head takes the top k of the N scores, found among the sums of the top k of each half, and
    weighs them by their softmax or sigmoid. Each head has its own queries and sub-keys; the experts
    are shared. Two heads may pick one expert, and then it counts twice. No loss.

    query_HCD: (H, C, D).  sub_keys_H2RC: (H, 2, R, C / 2).
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
        with torch.autocast(x_TD.device.type, enabled=False):
            score_THK, index_THK = self._search(self._queries(x_TD.to(dtype)))
        weight_THK = score_THK.softmax(2) if self.knobs.gate == "softmax" else score_THK.sigmoid()
        return Selected(Bags.from_choices(index_THK.flatten(1), weight_THK.flatten(1)))

    def _queries(self, x_TD: Tensor) -> Tensor:
        """(T, H, 2, C / 2)."""
        heads, key_dim, _ = self.query_HCD.shape
        query_TQ = F.linear(x_TD, self.query_HCD.flatten(0, 1).to(x_TD.dtype))
        return self.norm(query_TQ.view(-1, heads, key_dim)).view(-1, heads, 2, key_dim // 2)

    def _search(self, query_TH2C: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and indices of each head's top k, both (T, H, K)."""
        k, root = self.knobs.k, self.root
        sub_keys_H2RC = self.sub_keys_H2RC.to(query_TH2C.dtype)
        score_TH2R = torch.einsum("thpc,hprc->thpr", query_TH2C, sub_keys_H2RC)
        # No sum of the top k has a half outside that half's top k.
        n_half = min(k, root)
        half_TH2J, place_TH2J = score_TH2R.topk(n_half, dim=3)
        sum_THJJ = half_TH2J[:, :, 0, :, None] + half_TH2J[:, :, 1, None, :]
        score_THK, pair_THK = sum_THJJ.flatten(2).topk(k, dim=2)
        first_THK = place_TH2J[:, :, 0].gather(2, pair_THK // n_half)
        second_THK = place_TH2J[:, :, 1].gather(2, pair_THK % n_half)
        return score_THK, first_THK * root + second_THK
