"""Designs that a study tries first: what its file may say for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from search_space.backbone import Backbone
from search_space.cuts import CUTS
from search_space.errors import InputError, nearest, shown
from search_space.matching import MatchedPreset
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

WarmStart = str | MatchedPreset | FFNSpec
Kind = Literal["pretrain", "sparsify"]


def presets_of(kind: object) -> Mapping[str, Callable[[Backbone], FFNSpec]]:
    """The designs that a warm start of such a study may name."""
    return CUTS if kind == "sparsify" else PRESETS


def read_warm_start(item: Any, kind: object) -> WarmStart:
    """A preset's name, a preset at the reference's cost, or a spec, of plain data."""
    presets = presets_of(kind)
    if isinstance(item, Mapping):
        try:
            return MatchedPreset.from_dict(item) if "preset" in item else FFNSpec.from_dict(item)
        except InputError as error:
            raise InputError(f"warm_start: {error}") from None
    if isinstance(item, str) and item in presets:
        return item
    raise InputError(f"warm_start: no preset is named {shown(item)}; {nearest(item, presets)}")


def named(item: WarmStart, kind: Kind, backbone: Backbone) -> tuple[str, FFNSpec]:
    """The name that people know a warm start by, and its design."""
    if isinstance(item, FFNSpec):
        return item.label, item
    if isinstance(item, MatchedPreset):
        return item.name, item.spec(backbone)
    return item, presets_of(kind)[item](backbone)
