"""The account of the FLOPs that a run spends."""

from __future__ import annotations

from collections.abc import Sequence

from search_space.contract import EvalRequest
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError
from workers.layers.declared import Declared, declared
from workers.model import LanguageModel
from workers.training.carried import Carried


def pays(level: float, flops: float) -> bool:
    """Whether a level pays for so many FLOPs; sums of floats may be off by their rounding."""
    return flops <= level * (1 + 1e-9)


def mean_activity(layers: Sequence[Declared]) -> float:
    """The mean training activity of the layers that have one."""
    shares = [float(m.training_activity) for m in layers if m.training_activity is not None]
    return sum(shares) / len(shares)


class Meter(Carried):
    """The FLOPs that a run really spends, a step at a time.

    spent: the position along the run: its own steps, without the branches of lower rungs.
    price: of the coming step. It is fixed, but for designs whose training activity depends on the
    data (ReLU routing): those are charged what their layers last read.
    asked: the highest level that a step so far needed. A price may fall, so this can lie above
    `spent`; a run to a lower level would have stopped before.
    """

    def __init__(self, model: LanguageModel, request: EvalRequest) -> None:
        self.request, self.spent, self.asked = request, 0.0, 0.0
        self.adaptive = [m for _, m in declared(model) if m.training_activity is not None]
        self.price = step_flops(request.spec, request.backbone, request.recipe.batch_size)
        if not pays(request.until_flops, self.price):
            raise InputError(
                f"a trial's budget must pay for one step: {request.until_flops:.3g} FLOPs, one "
                f"step of {request.spec.label!r} costs {self.price:.3g}; raise budget.trial_flops"
            )

    def affords_a_step(self, level: float) -> bool:
        """Whether a level of FLOPs pays for one step more at the last price."""
        return pays(level, self.spent + self.price)

    def charge(self) -> None:
        """Account for the step that was done."""
        self.asked = max(self.asked, self.spent + self.price)
        if self.adaptive:
            activity = mean_activity(self.adaptive)
            request = self.request
            cost = model_cost(request.spec, request.backbone, activity)
            tokens = request.recipe.batch_size * request.backbone.seq_len
            self.price = cost.training_flops * tokens
        self.spent += self.price

    def carried(self) -> dict[str, float]:
        """What is spent, the price of the next step, and the level that was needed so far."""
        return {"spent": self.spent, "price": self.price, "asked": self.asked}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on from what was spent."""
        self.spent, self.price = numbers["spent"], numbers["price"]
        self.asked = numbers["asked"]
