"""How the frontier page looks at a study: axes, rung, colour, shape; read from the link."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.controls import Choice, Letters, Switch
from dashboard.data.reading import Reading
from dashboard.figures.looks import Look, fits_shape, look
from dashboard.figures.points import default_axes
from nas.search.objectives import OBJECTIVES
from nas.store import StudyRecord

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


def view_of(reading: Reading) -> View:
    """What the link says; the controls need not have been drawn."""
    shown = _Controls(reading)
    z, rung = shown.third.value, shown.rung.value if shown.rung else ""
    two = shown.up.value, shown.across.value
    return View(
        axes=two if z == NO_AXIS else (*two, z),
        rung=int(rung) if rung else None,
        log=shown.scales.value,
        colour=z if z != NO_AXIS else shown.colour.value,
        shape=shown.shape.value,
        weak="hidden" if shown.weak.value else "faded",
    )


def draw_controls(reading: Reading) -> None:
    """The controls above the chart."""
    shown = _Controls(reading)
    first = (shown.up, shown.across, shown.third, shown.colour, shown.shape)
    for place, control in zip(st.columns([3, 3, 3, 3, 3]), first, strict=True):
        with place:
            control.draw()
    widths = [6, 3, 6] if shown.rung else [1, 3, 11]
    second = (shown.rung, shown.scales, shown.weak)
    places = st.columns(widths, vertical_alignment="bottom")
    for place, each in zip(places, second, strict=True):
        with place:
            if each:
                each.draw()


class _Controls:
    """What there is to choose in a study; some of it depends on what is chosen."""

    def __init__(self, reading: Reading) -> None:
        default_y, default_x = default_axes(reading.study)
        titles = {name: each.title for name, each in OBJECTIVES.items()}
        self.up = Choice("Up", "y", lambda: titles, default_y)
        y = self.up.value
        others = {name: title for name, title in titles.items() if name != y}
        default = default_x if default_x != y else default_y
        self.across = Choice("Across", "x", lambda: others, default)
        rest = {name: title for name, title in others.items() if name != self.across.value}
        self.third = Choice(
            "Third objective",
            "z",
            lambda: {NO_AXIS: "none"} | rest,
            NO_AXIS,
            help="Shown as colour. The front is then that of all three.",
        )
        three = self.third.value != NO_AXIS
        self.colour = Choice("Colour", "colour", lambda: colours(reading), "method", disabled=three)
        self.shape = Choice("Shape", "shape", lambda: shapes(reading), "method")
        self.rung = _rung(reading.study)
        self.scales = Letters("Log scale", "log", {"x": "across", "y": "up"}, "x")
        self.weak = Switch(
            "Hide the dominated",
            "weak",
            "hidden",
            help="Leave out designs that another one beats on every axis, and those that break a "
            "bound of the study.",
        )


def _rung(study: StudyRecord) -> Choice | None:
    """At which rung; None where there is one alone."""
    if study.rungs == 1:
        return None
    lower = {str(r): f"rung {r}: all that came to it" for r in range(study.top)}
    return Choice(
        "Measured at",
        "rung",
        lambda: {"": f"the top rung, {study.top}: the study's results"} | lower,
        "",
        help="A lower rung shows what all designs that came to it measured there, "
        "whatever came after. Two rungs do not compare.",
    )


def colours(reading: Reading) -> dict[str, str]:
    """What may colour the points: the method first, then the other knobs that vary."""
    values = reading.knob_values
    varied = [name for name, count in values.items() if name != "method" and count > 1]
    return {"method": "method"} | {name: name for name in varied}


def shapes(reading: Reading) -> dict[str, str]:
    """What may shape the points: knobs of few values."""
    found, values = colours(reading), reading.knob_values
    return {name: name for name in found if name == "method" or fits_shape(values[name])}


def looks_of(view: View, reading: Reading, frame: pd.DataFrame) -> tuple[Look, Look]:
    """Colour and shape.

    frame: the points'; a third objective takes its values of it.
    """
    if len(view.axes) > 2:
        title = OBJECTIVES[view.axes[2]].title
        values = pd.to_numeric(frame[view.axes[2]])
        colour = Look(view.axes[2], values.astype(float), (), title)
    else:
        colour = look(view.colour, column(view.colour, reading))
    return colour, look(view.shape, column(view.shape, reading), scale=False)


def column(name: str, reading: Reading) -> pd.Series:
    """A knob's values by trial; the method is known without the others."""
    return reading.trials["method"] if name == "method" else reading.knobs[name]
