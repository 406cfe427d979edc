"""The account of the FLOPs that training spends."""

from __future__ import annotations

from search_space.contract import EvalRequest
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError
from workers.layers.carried import AdaptiveActivity, Carried
from workers.model import ProxyLM


class Meter(Carried):
    """The FLOPs that training really spends, a step at a time.

    A step's price is fixed, but for designs whose training activity depends on the data (ReLU
    routing): those are charged what their layers last read.
    """

    def __init__(self, model: ProxyLM, request: EvalRequest) -> None:
        self.request, self.spent = request, 0.0
        self.adaptive = [m for m in model.modules() if isinstance(m, AdaptiveActivity)]
        self.price = step_flops(request.spec, request.backbone, request.recipe.batch_size)
        if self.price > request.train_flops * (1 + 1e-9):
            raise InputError(
                f"a trial's budget must pay for one step: {request.train_flops:.3g} FLOPs, one "
                f"step of {request.spec.label!r} costs {self.price:.3g}; raise budget.trial_flops"
            )

    def affords_a_step(self) -> bool:
        """Whether the budget pays for one step more at the last price."""
        return self.spent + self.price <= self.request.train_flops * (1 + 1e-9)

    def share(self) -> float:
        """The share of the budget that is spent in the middle of the coming step."""
        return min(1.0, (self.spent + self.price / 2) / self.request.train_flops)

    def charge(self) -> None:
        """Account for the step that was done."""
        if self.adaptive:
            activity = sum(m.training_activity for m in self.adaptive) / len(self.adaptive)
            request = self.request
            cost = model_cost(request.spec, request.backbone, activity)
            tokens = request.recipe.batch_size * request.backbone.seq_len
            self.price = cost.training_flops * tokens
        self.spent += self.price

    def carried(self) -> dict[str, float]:
        """What is spent, and the price of the next step."""
        return {"spent": self.spent, "price": self.price}

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on from what was spent."""
        self.spent, self.price = numbers["spent"], numbers["price"]
