"""The learning rate's factor on the way through a budget."""

from __future__ import annotations

import math

from search_space.contract import Recipe


def schedule(share: float, recipe: Recipe) -> float:
    """Warmup-stable-decay over the share of the budget that is spent, in [0, 1].

    Linear warmup, constant, then 1 - sqrt (Hagele et al. 2024).
    """
    if share < recipe.warmup:
        return share / recipe.warmup
    if share > 1 - recipe.decay:
        return 1 - math.sqrt((share - 1 + recipe.decay) / recipe.decay)
    return 1.0
