"""Which module stands for which selection method: the one registration."""

from __future__ import annotations

from torch import nn

from search_space.errors import SpecError
from search_space.spec import FFNSpec
from workers.layers.avgk import AvgKSelection
from workers.layers.dense import DenseSelection
from workers.layers.direct import DirectSelection
from workers.layers.hash import HashSelection
from workers.layers.product_key import ProductKeySelection
from workers.layers.relu_routing import ReLURoutingSelection
from workers.layers.straight_through import StraightThroughSelection
from workers.layers.topk import TopKSelection

SELECTIONS: dict[str, type[nn.Module]] = {
    "dense": DenseSelection,
    "topk": TopKSelection,
    "hash": HashSelection,
    "avgk": AvgKSelection,
    "direct": DirectSelection,
    "product_key": ProductKeySelection,
    "straight_through": StraightThroughSelection,
    "relu_routing": ReLURoutingSelection,
}
NEEDS_VOCABULARY = frozenset({"hash"})


def build_selection(spec: FFNSpec, d_model: int, vocab_size: int) -> nn.Module:
    """The selection module of `spec`: forward(x_TD, ids_T, experts) -> Selected."""
    cls = SELECTIONS.get(spec.method)
    if cls is None:
        raise SpecError(
            f"no layer for selection {spec.method!r}; methods with one: {', '.join(SELECTIONS)}"
        )
    if spec.method in NEEDS_VOCABULARY:
        return cls(spec, d_model, vocab_size)
    return cls(spec, d_model)
