"""What a learned router is asked, and what it answers: the words that all forms share.

T tokens, B experts, K choices a token, P = T * K (token, expert) pairs sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from workers.kernels.pairs import Pairs

MeanOver = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """How experts are chosen, and what the choice costs.

    k: experts a token.
    softmax: p = softmax(z), else sigmoid(z).
    normalize: divide the chosen p by their sum.
    balance: weight of B sum_b f_b P_b, f the shares of the pairs and P the means of p (Switch,
        arXiv 2101.03961, eq. 4); of sigmoid gates as shares (DeepSeek-V3, arXiv 2412.19437,
        eq. 19).
    z: weight of the mean of logsumexp(z)^2 (ST-MoE, arXiv 2202.08906, eq. 5).
    entropy: weight of sum_b m_b log m_b, m the means of softmax(z) (sigma-MoE, arXiv 2310.10837,
        eq. 20).
    counts: whether the pairs of each expert are wanted.
    always: experts after the B, which every token reads with weight 1, and no loss knows of.
    """

    k: int
    softmax: bool = True
    normalize: bool = False
    balance: float = 0.0
    z: float = 0.0
    entropy: float = 0.0
    counts: bool = False
    always: int = 0

    @property
    def has_loss(self) -> bool:
        """Whether the choice costs anything."""
        return bool(self.balance or self.z or self.entropy)


class Choice(NamedTuple):
    """What was chosen.

    pairs: which token reads which expert.
    weight_P: of each pair, with the gradient of the router.
    load_B: pairs of each expert, in the logits' dtype, where the rule wants them.
    loss: the weighted losses, a scalar; None where the rule has none.
    """

    pairs: Pairs
    weight_P: Tensor
    load_B: Tensor | None
    loss: Tensor | None


@dataclass(frozen=True)
class Threshold:
    """When a sigmoid gate is open, and what gates cost.

    tau: what an open gate is above.
    renormalize: whether weights are multiplied by B / the open gates of their token.
    sparsity: weight of the mean of the open gates.
    """

    tau: float
    renormalize: bool
    sparsity: float
