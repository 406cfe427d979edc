"""`Routing`: a selection in the words that the model classes of the field share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How a token's experts are picked, and what their outputs are weighted with.

    score: `softmax` or `sigmoid` of the products with the router's rows; `one` where every expert
        is read with weight 1.
    k: experts a token; 0 for every one.
    normalize: whether the kept weights are divided by their sum.
    bias: whether a bias moves the choice, and not the weights.
    """

    score: Literal["one", "softmax", "sigmoid"]
    k: int = 0
    normalize: bool = False
    bias: bool = False


EVERY_EXPERT = Routing(score="one")
