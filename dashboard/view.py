"""How the frontier page looks at a study: axes, rung, colour, shape; read from the link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard import controls
from dashboard.data.reading import Reading
from dashboard.figures.looks import Look, fits_shape, look
from dashboard.figures.points import default_axes
from nas.search.objectives import OBJECTIVES

NO_AXIS = "-"


@dataclass(frozen=True)
class View:
    """What was chosen.

    axes: y, x and, where there is one, the third, which the colour shows.
    rung: None for the top one.
    log: the letters of the axes that are logarithms'.
    colour, shape: knobs by name.
    weak: "faded" or "hidden".
    """

    axes: tuple[str, ...]
    rung: int | None
    log: str
    colour: str
    shape: str
    weak: str

    @property
    def of_study(self) -> bool:
        """Whether its front is the top rung's, whose probabilities are known."""
        return self.rung is None


def choose_view(reading: Reading) -> View:
    """The controls above the chart."""
    study = reading.study
    default_y, default_x = default_axes(study)
    titles = {name: each.title for name, each in OBJECTIVES.items()}
    up, across, third, tinted, shaped = st.columns([3, 3, 3, 3, 3])
    with up:
        y = controls.choice("Up", "y", titles, default_y)
    others = {name: title for name, title in titles.items() if name != y}
    with across:
        x = controls.choice("Across", "x", others, default_x if default_x != y else default_y)
    rest = {name: title for name, title in others.items() if name != x}
    with third:
        z = controls.choice(
            "Third objective",
            "z",
            {NO_AXIS: "none"} | rest,
            NO_AXIS,
            help="Shown as colour. The front is then that of all three.",
        )
    with tinted:
        colour = controls.choice(
            "Colour", "colour", colours(reading.knob_values), "method", disabled=z != NO_AXIS
        )
    with shaped:
        shape = controls.choice("Shape", "shape", shapes(reading.knob_values), "method")
    rung, log, weak = _display(reading)
    axes = (y, x) if z == NO_AXIS else (y, x, z)
    return View(axes, rung, log, z if z != NO_AXIS else colour, shape, weak)


def _display(reading: Reading) -> tuple[int | None, str, str]:
    """Rung, scales and what is hidden."""
    study = reading.study
    widths = [6, 3, 6] if study.rungs > 1 else [1, 3, 11]
    at, scales, hide = st.columns(widths, vertical_alignment="bottom")
    rung = ""
    with at:
        if study.rungs > 1:
            lower = {str(r): f"rung {r}: all that came to it" for r in range(study.top)}
            words = {"": f"the top rung, {study.top}: the study's results"} | lower
            rung = controls.choice(
                "Measured at",
                "rung",
                words,
                "",
                help="A lower rung shows what all designs that came to it measured there, "
                "whatever came after. Two rungs do not compare.",
            )
    with scales:
        log = controls.letters("Log scale", "log", {"x": "across", "y": "up"}, "x")
    with hide:
        hidden = controls.switch(
            "Hide the dominated",
            "weak",
            "hidden",
            help="Leave out designs that another one beats on every axis, and those that break a "
            "bound of the study.",
        )
    return (int(rung) if rung else None), log, "hidden" if hidden else "faded"


def colours(values: Mapping[str, int]) -> dict[str, str]:
    """What may colour the points: the method first, then the other knobs that vary.

    values: how many values each knob has.
    """
    varied = [name for name, count in values.items() if name != "method" and count > 1]
    return {"method": "method"} | {name: name for name in varied}


def shapes(values: Mapping[str, int]) -> dict[str, str]:
    """What may shape the points: knobs of few values."""
    return {name: name for name in colours(values) if name == "method" or fits_shape(values[name])}


def looks_of(
    view: View, reading: Reading, knobs: pd.DataFrame, frame: pd.DataFrame
) -> tuple[Look, Look]:
    """Colour and shape.

    frame: the points'; a third objective takes its values of it.
    """
    if len(view.axes) > 2:
        title = OBJECTIVES[view.axes[2]].title
        values = pd.to_numeric(frame[view.axes[2]])
        colour = Look(view.axes[2], values.astype(float), (), title)
    else:
        colour = look(view.colour, column(view.colour, reading, knobs))
    return colour, look(view.shape, column(view.shape, reading, knobs), scale=False)


def column(name: str, reading: Reading, knobs: pd.DataFrame) -> pd.Series:
    """A knob's values by trial; the method is known without the others."""
    return reading.trials["method"] if name == "method" else knobs[name]
