"""Designs of a space from hypothesis: an adapter that answers `suggest` like a trial."""

from __future__ import annotations

import dataclasses
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from search_space.backbone import Backbone
from search_space.errors import SpecError
from search_space.methods.product_key import ProductKeyKnobs
from search_space.space import SearchSpace, suggest
from search_space.spec import FFNSpec

# The same examples everywhere: a red run can be run again.
DRAWN = settings(
    max_examples=int(os.environ.get("NAS_TEST_EXAMPLES", "100")),
    database=None,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ATTEMPTS = 50


class DrawnTrial:
    """The part of a trial that a space uses; every pick is hypothesis's."""

    def __init__(self, draw) -> None:
        self.draw, self.params = draw, {}

    def suggest_categorical(self, name, choices):
        assert name not in self.params, f"{name} was asked twice"
        value = choices[0] if len(choices) == 1 else self.draw(st.sampled_from(list(choices)))
        return self.params.setdefault(name, value)

    def suggest_float(self, name, low, high, *, log=False):
        assert name not in self.params, f"{name} was asked twice"
        return self.params.setdefault(name, self.draw(st.floats(low, high)))


def legal_design(draw, space: SearchSpace, backbone: Backbone) -> tuple[dict, FFNSpec]:
    """The first legal design of several draws."""
    for _ in range(ATTEMPTS):
        trial = DrawnTrial(draw)
        try:
            return trial.params, suggest(space, trial, backbone)
        except SpecError:
            continue
    raise AssertionError(f"{ATTEMPTS} draws without a legal design")


def tiny(match: str = "free") -> SearchSpace:
    """The default space with sizes for backbones of a few units."""
    default = SearchSpace()
    return dataclasses.replace(
        default,
        match=match,
        width_multiple=1,
        active_width=(1.0,) if match != "free" else (0.25, 0.5, 1.0),
        granularity=(1, 2, 3, 8),
        depth=(1, 2, 3),
        sections={
            "product_key": ProductKeyKnobs(
                heads=(1, 2), k=(1, 2, 7), expansion=(1.0, 2.0), expert_width=(1, 9)
            )
        },
    )
