"""Published designs at equal cost: as wide as the reference FFN's FLOPs or parameters allow.

Papers compare at equal FLOPs or parameters. A gated expert has three matrices where a plain one
has two, so at equal width it costs half as much again, sees fewer tokens in a search and looks
worse than it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from search_space.backbone import Backbone
from search_space.checks import known_word, section
from search_space.errors import InputError, SpecError
from search_space.presets import PRESETS
from search_space.space.sizing import fit_cost
from search_space.spec import FFNSpec

Equal = Literal["active_flops", "total_params"]


def matched(spec: FFNSpec, match: Equal, backbone: Backbone) -> FFNSpec:
    """The design with the width at which its FFN costs what the reference one does.

    Raises SpecError where no width comes near enough.
    """

    def build(n: int) -> FFNSpec:
        return dataclasses.replace(spec, **spec.selection.resized(spec, match, n))

    way_out = "take it as published, or widen backbone.reference_d_ff"
    return fit_cost(build, match, backbone, way_out)


@dataclass(frozen=True)
class MatchedPreset:
    """A preset at the reference FFN's cost, as a study's `warm_start` names it.

    preset: its name.
    match: the cost that is equal.
    """

    preset: str
    match: Equal

    def __post_init__(self) -> None:
        known_word("a matched preset", self.preset, PRESETS, "name")
        known_word("a matched preset's match", self.match, get_args(Equal), "cost")

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.preset} at {self.match}"

    def spec(self, backbone: Backbone) -> FFNSpec:
        """The design; InputError, with its name, where it cannot be matched."""
        try:
            return matched(PRESETS[self.preset](backbone), self.match, backbone)
        except SpecError as error:
            raise InputError(f"{self.name}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MatchedPreset:
        """Read `to_dict`'s form; both keys are needed, an unknown one is refused."""
        return section(cls, "a matched preset", data)
