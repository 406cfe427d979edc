"""A design at another size, before it is written: what is typed, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nas.yaml_file import parse_value
from search_space.backbone import Backbone
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.scaling import enlarged, scaled
from search_space.spec import FFNSpec

SIZES = tuple(f.name for f in fields(Backbone) if f.name != "base")
BYTES = 4  # of a weight on the disk


@dataclass(frozen=True)
class Sized:
    """A design in a backbone, and its costs: parameters, and FLOPs a token."""

    spec: FFNSpec
    backbone: Backbone
    total_params: float
    active_params: float
    active_flops: float
    training_flops: float

    @property
    def bytes(self) -> float:
        """Of its weights in a file."""
        return BYTES * self.total_params


def changes(typed: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the backbone that were typed, as the values that they mean."""
    return {name: parse_value(text) for name, text in typed.items() if text.strip()}


def sized(spec: FFNSpec, backbone: Backbone, changed: Mapping[str, Any]) -> Sized:
    """The design with these fields changed. Raises InputError for what does not fit."""
    if not changed:
        raise InputError("another size needs a field of the backbone, such as d_model: none given")
    new = enlarged(backbone, changed)
    design = scaled(spec, backbone, new)
    cost = model_cost(design, new)
    return Sized(
        design,
        new,
        cost.total_params,
        cost.active_params,
        cost.active_flops,
        cost.training_flops,
    )


def option(changed: Mapping[str, Any]) -> str:
    """The changed fields as `nas export --backbone` takes them."""
    return ",".join(f"{name}={value}" for name, value in changed.items())
