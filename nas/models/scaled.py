"""`Scaled`: a design that a study found, at another size."""

from __future__ import annotations

from dataclasses import dataclass

from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.cost import model_cost
from search_space.spec import FFNSpec


@dataclass(frozen=True)
class Scaled:
    """A trial's design at another size.

    found: in words, where the design comes from.
    recipe: the study's.
    tokens: of the tokenizer; rows of the embedding beyond them are never read.
    """

    spec: FFNSpec
    backbone: Backbone
    found: str
    recipe: Recipe
    seed: int
    tokens: int

    @property
    def notes(self) -> list[str]:
        """What its user must know, a line each."""
        cost = model_cost(self.spec, self.backbone)
        lines = [
            f"initialised, not trained: {self.spec.label}, {cost.total_params:,.0f} parameters, "
            f"{cost.active_flops:.3g} active and {cost.training_flops:.3g} training FLOPs a token"
        ]
        unused = self.backbone.vocab_size - self.tokens
        if unused:
            lines.append(
                f"the tokenizer has {self.tokens:,} tokens: {unused:,} of the "
                f"{self.backbone.vocab_size:,} rows of the embedding are never read"
            )
        return lines
