"""What the dearest design costs that a study may propose."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from search_space.backbone import Backbone
from search_space.cost import model_cost
from search_space.design import Method
from search_space.space import SearchSpace, look
from search_space.spec import FFNSpec


def dearest_among(
    specs: Iterable[FFNSpec], backbone: Backbone, limits: Mapping[str, float]
) -> float:
    """Training FLOPs a token of the dearest design that keeps the limits; 0 for none."""
    costs = (model_cost(spec, backbone) for spec in specs)
    return max(
        (
            cost.training_flops
            for cost in costs
            if all(getattr(cost, name) <= limit for name, limit in limits.items())
        ),
        default=0.0,
    )


@functools.lru_cache(maxsize=64)  # a look takes a second, and a study is often made with changes
def dearest_in_space(
    space: SearchSpace,
    backbone: Backbone,
    limits: tuple[tuple[str, float], ...],
    methods: tuple[type[Method], ...],
) -> float:
    """The same among a look at a space. `methods` are its own: a plug-in's may be replaced."""
    return dearest_among(look(space, backbone), backbone, dict(limits))
