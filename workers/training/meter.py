"""The account of the FLOPs that a run spends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search_space.contract import EvalRequest
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError
from workers.kernels.place import kind
from workers.layers.declared import Declared, declared
from workers.model import LanguageModel
from workers.training.carried import Carried

MOST_NOTED = 4096  # steps at a time that a device notes


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

    What the layers read is known to the device. A CPU is asked after each step. A GPU notes it, and
    is asked where it matters: at a point of the curve, and where the level might not pay for the
    dearest step. Until then the numbers go on at the last price; `settle` makes them those of a
    meter that asks each time.
    """

    def __init__(self, model: LanguageModel, request: EvalRequest) -> None:
        self.request, self.spent, self.asked = request, 0.0, 0.0
        self.adaptive = [m for _, m in declared(model) if m.training_activity is not None]
        self.price = step_flops(request.spec, request.backbone, request.recipe.batch_size)
        self.noted = Noted()
        self.settled = self.spent, self.price, self.asked
        if not pays(request.until_flops, self.price):
            raise InputError(
                f"a trial's budget must pay for one step: {request.until_flops:.3g} FLOPs, one "
                f"step of {request.spec.label!r} costs {self.price:.3g}; raise budget.trial_flops"
            )
        self.dearest = self._price(1.0) if self.adaptive else self.price

    def affords_a_step(self, level: float) -> bool:
        """Whether a level of FLOPs pays for one step more at the last price."""
        if self.noted.count:
            surely = self.settled[0] + (self.noted.count + 1) * self.dearest
            if pays(level, surely) and self.noted.count < MOST_NOTED:
                return True
            self.settle()
        return pays(level, self.spent + self.price)

    def note(self) -> None:
        """Have the device note what its layers read in the step that was done; nothing where it is
        asked at once."""
        if self.adaptive:
            self.noted.add(self.adaptive)

    def charge(self) -> None:
        """Account for the step that was done."""
        if self.noted.waits:
            self.noted.count += 1
            self._charge(self.price)
            return
        self.settle()  # what a GPU noted before this device took the run up
        price = self._price(mean_activity(self.adaptive)) if self.adaptive else self.price
        self._charge(price)
        self.settled = self.spent, self.price, self.asked

    def settle(self) -> None:
        """Know exactly what was spent, asking the device where it has noted something."""
        if not self.noted.count:
            return
        self.spent, self.price, self.asked = self.settled
        for activity in self.noted.read():
            self._charge(self._price(activity))
        self.noted.begin([])
        self.settled = self.spent, self.price, self.asked

    def _charge(self, price: float) -> None:
        self.asked = max(self.asked, self.spent + self.price)
        self.price = price
        self.spent += price

    def _price(self, activity: float) -> float:
        """Of a step whose layers read this share."""
        request = self.request
        cost = model_cost(request.spec, request.backbone, activity)
        return cost.training_flops * (request.recipe.batch_size * request.backbone.seq_len)

    def carried(self) -> dict[str, float]:
        """What is spent, the price of the next step, and the level that was needed so far; and the
        activities that were noted since."""
        noted = {f"noted.{i}": activity for i, activity in enumerate(self.noted.read())}
        return dict(zip(("spent", "price", "asked"), self.settled, strict=True)) | noted

    def carry(self, numbers: dict[str, float]) -> None:
        """Go on from what was spent."""
        self.settled = numbers["spent"], numbers["price"], numbers["asked"]
        self.spent, self.price, self.asked = self.settled
        noted = [numbers[f"noted.{i}"] for i in range(len(numbers) - len(self.settled))]
        self.noted.begin(noted)
        for _ in noted:
            self._charge(self.price)


class Noted:
    """The mean activities of steps, kept on a device that is not asked for them yet.

    count: of the steps.
    waits: whether a device keeps them.
    """

    def __init__(self) -> None:
        self.count, self.waits = 0, False
        self.given: list[float] = []  # of a former worker, before the device has room for them
        self.kept_S: Tensor | None = None
        self.place: Tensor | None = None

    def add(self, layers: Sequence[Declared]) -> None:
        """What the layers read in a step."""
        known = [layer.training_activity for layer in layers]
        shares = [x for x in known if isinstance(x, Tensor)]
        if len(shares) < len(known) or kind(shares[0]) == "cpu":
            return
        first, *others = shares
        self.waits = True
        if self.kept_S is None or self.place is None:
            room = MOST_NOTED + 1
            self.kept_S = torch.zeros(room, dtype=torch.float64, device=first.device)
            self.place = torch.zeros(1, dtype=torch.int64, device=first.device)
            self.begin(self.given)
        mean = sum(others, first) / len(shares)
        # In place and at a place that the device counts: a graph of the step may hold the address.
        self.kept_S.scatter_(0, self.place, mean.view(1))
        self.place.add_(1)

    def read(self) -> list[float]:
        """The activities in order, asking the device."""
        if self.kept_S is None:
            return self.given
        found: list[float] = self.kept_S[: self.count].tolist()
        return found

    def begin(self, given: list[float]) -> None:
        """Note anew, after those of a former worker."""
        self.given, self.count = given, len(given)
        if self.kept_S is not None and self.place is not None:
            self.place.fill_(self.count)
            self.kept_S[: self.count] = torch.tensor(given, dtype=torch.float64)
