"""Recording what the layers of a model can tell while it runs; nothing when nobody records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from workers.layers.declared import declared
from workers.layers.stats import RoutingStats


@contextmanager
def record_stats(model: nn.Module) -> Iterator[dict[str, RoutingStats]]:
    """Record every layer of `model` that has statistics inside the `with`; keys are their names."""
    layers = dict(declared(model))
    recorded = {name: stats for name, m in layers.items() if (stats := m.new_stats()) is not None}
    try:
        for name, stats in recorded.items():
            layers[name].stats = stats
        yield recorded
    finally:
        for name in recorded:
            layers[name].stats = None
