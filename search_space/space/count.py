"""How many designs a space offers, within a time."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass

from search_space.backbone import Backbone
from search_space.space.asking import placements
from search_space.space.data import SearchSpace
from search_space.space.visit import shapes
from search_space.spec import FFNSpec


@dataclass(frozen=True, kw_only=True)
class Count:
    """Different legal designs of one method; at least so many when not `complete`."""

    method: str
    designs: int
    complete: bool


def count_designs(
    space: SearchSpace, backbone: Backbone, *, seconds: float = math.inf
) -> list[Count]:
    """The designs of each method, as `combinations` counts them.

    A method that its share of the time does not suffice for is counted as far as it got.
    """
    end = time.monotonic() + seconds
    counts = []
    for index, method in enumerate(space.methods):
        share = (end - time.monotonic()) / (len(space.methods) - index)
        counts.append(_count(space, backbone, method, time.monotonic() + share))
    return counts


def _count(space: SearchSpace, backbone: Backbone, method: str, end: float) -> Count:
    found: dict[FFNSpec, int] = {}
    complete = time.monotonic() <= end
    if complete:
        # Each is there once for every placement, so one stands for all.
        everywhere = dataclasses.replace(space, methods=(method,), placement=("all",))
        for spec, multiplicity in shapes(everywhere, backbone):
            found[spec.canonical()] = multiplicity
            if time.monotonic() > end:
                complete = False
                break
    return Count(
        method=method,
        designs=sum(found.values()) * len(placements(space, backbone)),
        complete=complete,
    )
