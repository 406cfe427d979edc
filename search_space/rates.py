"""Learning rates as a function of what is trained: the rule behind `lr: auto`.

The best rates of Muon and of Adam fall with the length of a run and with the proxy's width, and
rise with the tokens a step. `python -m benchmarks.rates` fits the exponents and measures what the
rule loses where it was not fitted; docs/recipe.md has the tables.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

AUTO: Literal["auto"] = "auto"
Rate = float | Literal["auto"]


class Rates(NamedTuple):
    """Learning rates.

    matrix_lr: Muon's.
    lr: AdamW's and the tables'.
    """

    matrix_lr: float
    lr: float


class Shape(NamedTuple):
    """What the rates depend on.

    d_model: the proxy's width.
    n_layers: of the proxy.
    tokens: of a whole run.
    batch_tokens: tokens a step.
    """

    d_model: float
    n_layers: float
    tokens: float
    batch_tokens: float


BASE = Shape(d_model=64, n_layers=2, tokens=370_000, batch_tokens=1024)
AT_BASE = Rates(matrix_lr=0.0222, lr=0.0317)
EXPONENTS = Shape(d_model=-0.5, n_layers=-0.1, tokens=-0.4, batch_tokens=0.5)
# What was trained to fit the rule.
RANGES = {
    "d_model": (64, 128),
    "n_layers": (2, 4),
    "tokens": (250_000, 1_500_000),
    "batch_tokens": (512, 2048),
}
MOST = 4.0  # times the rates at BASE
# Of the rule's rates, where a pretrained model is trained on (docs/sparsify.md).
CUT_SHARE = 0.1


def rates(shape: Shape) -> Rates:
    """The rule: the rates at `BASE` times a power of each of the shape's ratios to it.

    Runs shorter than any that was tried have the rates of the shortest: at higher ones gated
    designs did worse (docs/recipe.md).
    """
    shape = shape._replace(tokens=max(shape.tokens, RANGES["tokens"][0]))
    ratios = (own / base for own, base in zip(shape, BASE, strict=True))
    factor = math.prod(ratio**power for ratio, power in zip(ratios, EXPONENTS, strict=True))
    return Rates(*(min(factor, MOST) * rate for rate in AT_BASE))


def outside(shape: Shape) -> list[str]:
    """In words, where a shape lies outside what the rule was fitted on."""
    found = []
    for name, value in shape._asdict().items():
        low, high = RANGES[name]
        if not low <= value <= high:
            found.append(f"{name} {value:.3g} (fitted on {low:,} to {high:,})")
    return found
