"""What a selection says to the experts: which experts a token reads, and with what weight.

T tokens, B experts, K choices a token, P (token, expert) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Every token reads every expert.

    weight_TB: (T, B), or None for all ones.
    """

    weight_TB: Tensor | None = None


@dataclass(frozen=True)
class Ragged:
    """Pairs sorted by expert: the layout of matrix products, one an expert.

    token_P: the token of each pair.
    counts: pairs of each expert.
    weight_P: (P,), or None for all ones.
    """

    token_P: Tensor
    counts: list[int]
    weight_P: Tensor | None = None

    @staticmethod
    def from_choices(index_TK: Tensor, weight_TK: Tensor | None, n_experts: int) -> Ragged:
        """K experts a token: index_TK (T, K), and their weights (T, K) or None."""
        flat = index_TK.reshape(-1)
        order_P = torch.argsort(flat, stable=True)
        weight_P = None if weight_TK is None else weight_TK.reshape(-1)[order_P]
        counts = torch.bincount(flat, minlength=n_experts).tolist()
        return Ragged(order_P // index_TK.shape[1], counts, weight_P)

    @staticmethod
    def from_open(weight_TB: Tensor, open_TB: Tensor) -> Ragged:
        """Any number of experts a token: those where open_TB (T, B, bool) holds."""
        expert_P, token_P = open_TB.t().nonzero(as_tuple=True)
        counts = torch.bincount(expert_P, minlength=open_TB.shape[1]).tolist()
        return Ragged(token_P, counts, weight_TB[token_P, expert_P])

    def pair_experts(self) -> Tensor:
        """The expert of each pair, (P,)."""
        counts_B = torch.tensor(self.counts, device=self.token_P.device)
        return torch.repeat_interleave(counts_B, output_size=self.token_P.numel())

    def by_token(self, n_tokens: int) -> Bags:
        """The same pairs sorted by token."""
        order_P = torch.argsort(self.token_P, stable=True)
        size_T = torch.bincount(self.token_P, minlength=n_tokens)
        return Bags(
            expert_P=self.pair_experts()[order_P],
            token_P=self.token_P[order_P],
            start_T=size_T.cumsum(0) - size_T,
            weight_P=None if self.weight_P is None else self.weight_P[order_P],
        )


@dataclass(frozen=True)
class Bags:
    """Pairs sorted by token: the layout of row reads (an embedding bag a token).

    expert_P, token_P: of each pair.
    start_T: where each token's pairs begin.
    weight_P: (P,), or None for all ones.
    score_P: the pre-activation of each pair's one hidden unit (the gate's when gated) where the
        selection computed it, without gradient; else None.
    """

    expert_P: Tensor
    token_P: Tensor
    start_T: Tensor
    weight_P: Tensor | None = None
    score_P: Tensor | None = None

    @staticmethod
    def from_choices(
        index_TK: Tensor, weight_TK: Tensor | None, score_TK: Tensor | None = None
    ) -> Bags:
        """K experts a token: index_TK (T, K), and their weights and scores (T, K) or None."""
        n_tokens, k = index_TK.shape
        token_T = torch.arange(n_tokens, device=index_TK.device)
        return Bags(
            expert_P=index_TK.reshape(-1),
            token_P=token_T.repeat_interleave(k),
            start_T=token_T * k,
            weight_P=None if weight_TK is None else weight_TK.reshape(-1),
            score_P=None if score_TK is None else score_TK.reshape(-1),
        )

    def by_expert(self, n_experts: int) -> Ragged:
        """The same pairs sorted by expert."""
        order_P = torch.argsort(self.expert_P, stable=True)
        counts = torch.bincount(self.expert_P, minlength=n_experts).tolist()
        weight_P = None if self.weight_P is None else self.weight_P[order_P]
        return Ragged(self.token_P[order_P], counts, weight_P)


Routing = Full | Ragged | Bags


@dataclass(frozen=True)
class Selected:
    """A selection's answer.

    routing: which token reads which expert.
    loss: what it adds to the loss, a scalar, or None.
    """

    routing: Routing
    loss: Tensor | None = None
