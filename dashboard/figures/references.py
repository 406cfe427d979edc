"""What a scatter is compared with: the dense reference design, presets by name, n-gram models."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pandas as pd

from dashboard.data.designs import Specs
from nas.store import StudyRecord
from nas.views.style import GREY, Data, shown
from search_space.backbone import Backbone
from search_space.cuts import CUTS
from search_space.errors import InputError
from search_space.placement import reference
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

_FONT = {"size": 11, "color": GREY}


def dense_reference(study: StudyRecord, trials: pd.DataFrame, specs: Specs) -> int | None:
    """The trial that is the dense FFN which ratios refer to; None where the study has not tried it.

    trials, specs: as `Reading` has them.
    """
    try:
        wanted = reference(Backbone.from_dict(study.config.get("backbone") or {}))
    except InputError:
        return None
    numbers = trials.index[(trials["method"] == wanted.method).to_numpy()].to_numpy()
    for number, stored in zip(numbers.tolist(), specs.stored(numbers), strict=True):
        alike = all(stored.get(name, usual) == own for name, usual, own in _fields(wanted))
        if alike and FFNSpec.from_dict(stored).key == wanted.key:
            return int(number)
    return None


def _fields(wanted: FFNSpec) -> list[tuple[str, Any, Any]]:
    """Name, default and value of each field that two ways to write one dense FFN share."""
    written = ("selection", "expert_width", "shared_width", "cut")
    shared = [each for each in fields(FFNSpec) if each.name not in written]
    return [(each.name, each.default, getattr(wanted, each.name)) for each in shared]


def preset_names(trials: pd.DataFrame) -> pd.Series:
    """The names of the trials that a study began with under one, by trial.

    A warm start that was given as a spec has its label as its name, which says nothing more.
    """
    source = trials["source"].astype(str)
    named = [name for name in source.unique() if name.split(" at ")[0] in PRESETS | CUTS]
    return source[source.isin(named)]


def reference_lines(
    study: StudyRecord, frame: pd.DataFrame, dense_trial: int | None, y: str, x: str, log_y: bool
) -> tuple[list[Data], list[Data]]:
    """Shapes and their notes: the dense reference on both axes, the n-gram models that lie in the
    range of the frame's bits per byte.

    log_y: a logarithm's axis takes a note's place as its logarithm, and a shape's as it is.
    """
    at = (lambda value: math.log10(value)) if log_y else float
    shapes, notes = [], []
    if dense_trial is not None and dense_trial in frame.index:
        row: Any = frame.loc[dense_trial]
        shapes += [_across(float(row[y])), _upright(float(row[x]))]
        notes.append(_note(at(row[y]), f"dense reference (#{dense_trial})", left=True))
    if y == "bits_per_byte" and len(frame):
        low, high = float(frame[y].min()), float(frame[y].max())
        pad = 0.05 * (high - low)
        for order, value in study.facts.ngram_bits_per_byte.items():
            if low - pad < value < high + pad:
                shapes.append(_across(value))
                notes.append(_note(at(value), f"{shown(order)}-gram {value:.2f}"))
    return shapes, notes


def _across(y: float) -> Data:
    return _line() | {"xref": "x domain", "yref": "y", "x0": 0, "x1": 1, "y0": y, "y1": y}


def _upright(x: float) -> Data:
    return _line() | {"xref": "x", "yref": "y domain", "x0": x, "x1": x, "y0": 0, "y1": 1}


def _line() -> Data:
    return {"type": "line", "layer": "below", "line": {"dash": "dot", "color": GREY, "width": 1}}


def _note(y: float, text: str, left: bool = False) -> Data:
    place = {"x": 0, "xanchor": "left"} if left else {"x": 1, "xanchor": "right"}
    fixed = {"xref": "x domain", "yref": "y", "yanchor": "bottom", "showarrow": False}
    return fixed | place | {"y": y, "text": text, "font": _FONT}
