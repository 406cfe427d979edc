"""What a selection says to the experts: which experts a token reads, and with what weight.

T tokens, B experts, K choices a token, P (token, expert) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.kernels.api.pair_order import order_pairs
from workers.kernels.api.spread import spread
from workers.kernels.pairs import Loads, Pairs
from workers.kernels.place import kind
from workers.kernels.torch.pair_order import by_expert, order_open


@dataclass(frozen=True)
class Full:
    """Every token reads every expert.

    weight_TB: (T, B), or None for all ones.
    """

    weight_TB: Tensor | None = None


@dataclass(frozen=True)
class Ragged:
    """Pairs sorted by expert: the layout of matrix products, one an expert.

    token_P: the token of each pair. What lies beyond the last expert's pairs is room: see `exact`.
    loads: pairs of each expert.
    weight_P: (P,), or None for all ones.
    choice_P, placed: as in `Pairs`.
    """

    token_P: Tensor
    loads: Loads
    weight_P: Tensor | None = None
    choice_P: Tensor | None = None
    placed: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def from_choices(index_TK: Tensor, weight_TK: Tensor | None, n_experts: int) -> Ragged:
        """K experts a token: index_TK (T, K), and their weights (T, K) or None."""
        return Ragged.of(*order_pairs(index_TK, weight_TK, n_experts))

    @staticmethod
    def of(pairs: Pairs, weight_P: Tensor | None) -> Ragged:
        """Pairs that have tokens, and their weights (P,) or None."""
        assert pairs.token_P is not None
        return Ragged(pairs.token_P, pairs.loads, weight_P, pairs.choice_P, pairs.placed)

    @staticmethod
    def from_open(weight_TB: Tensor, open_TB: Tensor) -> Ragged:
        """Any number of experts a token: those where open_TB (T, B, bool) holds. Asks the device
        how many there are: see `open_pairs`."""
        expert_P, token_P = open_TB.t().nonzero(as_tuple=True)
        loads = Loads.of_sorted(expert_P, open_TB.shape[1])
        return Ragged(token_P, loads, weight_TB[token_P, expert_P])

    @property
    def counts(self) -> list[int]:
        """Pairs of each expert, for the host."""
        return self.loads.listed

    @property
    def pairs(self) -> Pairs:
        """As the operations take them."""
        return Pairs(self.token_P, self.loads, self.choice_P, self.placed)

    def exact(self) -> Ragged:
        """Without room beyond the last expert's pairs; asks the device how many there are."""
        n_pairs = sum(self.counts)
        if n_pairs == self.token_P.numel():
            return self
        weight_P = None if self.weight_P is None else self.weight_P[:n_pairs]
        return Ragged(self.token_P[:n_pairs], self.loads, weight_P)

    def pair_experts(self) -> Tensor:
        """The expert of each pair, (P,)."""
        count_B = self.loads.count_B(self.token_P.device)
        return torch.repeat_interleave(count_B, output_size=self.token_P.numel())

    def by_token(self, n_tokens: int) -> Bags:
        """The same pairs sorted by token."""
        pairs = Pairs(self.token_P, self.loads, placed=self.placed)
        order_P, start_T1 = pairs.by_token(n_tokens)
        return Bags(
            expert_P=self.pair_experts()[order_P],
            token_P=self.token_P[order_P],
            start_T=start_T1[:-1],
            weight_P=None if self.weight_P is None else self.weight_P[order_P],
        )


@dataclass(frozen=True)
class Open:
    """Any number of experts a token, on a device that is not asked how many.

    weight_TB: (T, B), zero where a gate is shut.
    open_TB: (T, B), bool.
    """

    weight_TB: Tensor
    open_TB: Tensor

    def bounded(self) -> Ragged:
        """The open pairs sorted by expert, and after them room up to T * B."""
        return Ragged.of(*order_open(self.weight_TB, self.open_TB))


def open_pairs(weight_TB: Tensor, open_TB: Tensor) -> Ragged | Open:
    """Any number of experts a token: those where open_TB (T, B, bool) holds.

    A CPU is asked how many pairs there are, for it computes them alone; a GPU would be waited for.
    """
    if kind(open_TB) == "cpu":
        return Ragged.from_open(weight_TB, open_TB)
    return Open(weight_TB, open_TB)


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
        expert_P, order_P = by_expert(self.expert_P, n_experts)
        weight_P = None if self.weight_P is None else self.weight_P[order_P]
        loads = Loads.of_sorted(expert_P, n_experts)
        return Ragged(self.token_P[order_P], loads, weight_P)


@dataclass(frozen=True)
class Choices:
    """As many experts for each token: bags that are laid out when they are asked for.

    index_TK: (T, K).
    weight_TK, score_TK: (T, K) or None, as in `Bags`.
    distinct: how many choices, one after the other, are never of one expert; it divides K.
    """

    index_TK: Tensor
    weight_TK: Tensor | None
    score_TK: Tensor | None
    distinct: int

    @property
    def bags(self) -> Bags:
        """Pairs by token."""
        return Bags.from_choices(self.index_TK, self.weight_TK, self.score_TK)

    def spread(self, n_experts: int, dtype: torch.dtype) -> Tensor:
        """The weights of all experts, (T, B): 0 of those that a token does not read."""
        return spread(self.weight_TK, self.index_TK, n_experts, self.distinct, dtype)


Routing = Full | Ragged | Open | Bags | Choices


@dataclass(frozen=True)
class Selected:
    """A selection's answer.

    routing: which token reads which expert.
    loss: what it adds to the loss, a scalar, or None.
    """

    routing: Routing
    loss: Tensor | None = None
