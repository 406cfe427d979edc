"""What colour and shape points take from a knob: categories, or a scale of numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nas.views.certainty import Chance
from nas.views.style import GREY, PALETTE, Data, colour, shown, si, symbol

SHAPES = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "hexagon")
NONE = "none"  # of a knob that a design's method does not have
# Told apart in grey and with every common colour blindness, and seen on white and on black.
SCALE = [[0, "#3B5BA5"], [0.35, "#5B8FA8"], [0.65, "#C9A227"], [1, "#F2C14E"]]
_WIDE = 50.0  # largest / smallest value from which a scale is a logarithm's


@dataclass(frozen=True)
class Look:
    """A property of points by a knob.

    name: the knob's.
    values: by trial: text, or numbers where `numeric`; missing where a design has no such knob.
    categories: the texts in their order; () where `numeric`.
    title: of a scale; "" for the name.
    """

    name: str
    values: pd.Series
    categories: tuple[str, ...]
    title: str = ""

    @property
    def numeric(self) -> bool:
        """Whether a scale shows it."""
        return not self.categories

    @property
    def log(self) -> bool:
        """Whether its values are so far apart that their logarithms are shown."""
        known = self.values.dropna()
        return bool(len(known) and known.min() > 0 and known.max() / known.min() >= _WIDE)

    def colour_of(self, category: str) -> str:
        """A category's colour."""
        if self.name == "method":
            return colour(category)
        return GREY if category == NONE else PALETTE[self._place(category) % len(PALETTE)]

    def shape_of(self, category: str) -> str:
        """A category's shape."""
        if self.name == "method":
            return symbol(category)
        return "circle" if category == NONE else SHAPES[self._place(category) % len(SHAPES)]

    def _place(self, category: str) -> int:
        return [each for each in self.categories if each != NONE].index(category)

    def on_scale(self, values: pd.Series) -> list[float | None]:
        """Numbers as the scale takes them."""
        taken = self._scaled(values)
        return [None if math.isnan(value) else float(f"{value:.4g}") for value in taken]

    def _scaled(self, values: pd.Series) -> pd.Series:
        numbers = values.astype(float)
        if not self.log:
            return numbers
        return pd.Series(np.log10(numbers.where(numbers > 0)), index=numbers.index)

    def axis(self) -> Data:
        """The scale, with words on it."""
        known = self._scaled(self.values.dropna()).dropna()
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        ticks = [low + (high - low) * i / 4 for i in range(5)] if high > low else [low]
        texts = [si(10**tick if self.log else tick) for tick in ticks]
        bar = {
            "title": {"text": shown(self.title or self.name), "side": "right"},
            "thickness": 12,
            "len": 0.9,
        }
        return {
            "colorscale": SCALE,
            "cmin": low,
            "cmax": high if high > low else low + 1,
            "colorbar": bar | {"tickvals": ticks, "ticktext": texts, "outlinewidth": 0},
        }


def look(name: str, values: pd.Series, *, scale: bool = True) -> Look:
    """How a knob's values look.

    scale: whether numbers may take a scale; shapes have none.
    Numbers of at most a handful of values take categories where they may not; so do truth values.
    """
    known = values.dropna().unique().tolist()
    truths = all(isinstance(value, bool) for value in known)
    numbers = not truths and pd.api.types.is_numeric_dtype(values)
    if numbers and scale:
        return Look(name, values.astype(float), ())
    texts = values.map({value: category_words(value) for value in known}).fillna(NONE)
    found = texts.value_counts().index.tolist()
    found = found if name == "method" else sorted(found, key=_order)
    return Look(name, texts, tuple(found))


def fits_shape(values: int) -> bool:
    """Whether there are few enough values for each to have a shape of its own."""
    return 1 <= values <= len(SHAPES)


def category_words(value: object) -> str:
    """A knob's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _order(text: str) -> tuple[bool, float, str]:
    try:
        return text == NONE, float(text), text
    except ValueError:
        return text == NONE, math.inf, text


@dataclass(frozen=True, kw_only=True)
class Style:
    """How the points are to look.

    colour, shape: by which knobs; shapes have categories alone.
    log: which axes are logarithms', of "x" and "y".
    weak: "faded" or "hidden": points that are dominated or break a bound.
    chances: by trial; empty where there are none for these axes.
    names: of presets, by trial; empty where they are not to be shown.
    dense_trial: the trial of the dense reference design.
    references: whether reference lines are drawn.
    reach: by "x" and "y" the least and the largest value that an axis shows at least.
    keep: trials that are drawn whatever is left out: the selected ones.
    """

    colour: Look
    shape: Look
    log: Collection[str] = ("x",)
    weak: str = "faded"
    chances: Mapping[int, Chance] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    dense_trial: int | None = None
    references: bool = True
    reach: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    keep: frozenset[int] = frozenset()
