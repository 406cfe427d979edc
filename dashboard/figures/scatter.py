"""The scatter of the frontier page: any two or three objectives, the front, what it beats."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from dashboard.figures.hover import brief, full, rounded
from dashboard.figures.looks import Style
from dashboard.figures.points import Points
from dashboard.figures.references import reference_lines
from nas.store import StudyRecord
from nas.views.certainty import Chance
from nas.views.style import GREY, PAUSED, Data, layout, paused_name, shown

MOST_WEAK = 2000  # dominated or infeasible points that are drawn
MOST_PAUSED = 300
# Points from which WebGL draws them. Fewer are there as soon without it, and where there is no GPU
# it takes another second of a core.
GL_FROM = 3000
_MOST_LABELS = 25  # on the front: more would lie over each other
_MOST_TOLD = 200  # on the front, about which the mouse tells all that is known
FADED = 0.6
_SPREAD = 2654435761  # Knuth's: numbers times it, modulo 2**32, are spread evenly


@dataclass(frozen=True)
class Drawn:
    """A figure, and how many of the weak points it has.

    weak: of those drawn, and there are.
    """

    figure: Data
    weak: tuple[int, int]


def scatter(study: StudyRecord, found: Points, style: Style, paused: pd.DataFrame) -> Drawn:
    """The figure. A point's `customdata` is [trial number].

    paused: the trials' rows that are paused at a lower rung; they compare with nothing and wait in
        the legend.
    """
    y, x = found.axes[0], found.axes[1]
    weak = found.frame[~found.frame["front"]]
    kept = weak.iloc[:0] if style.weak == "hidden" else thinned(weak, MOST_WEAK, style.keep)
    front = found.front
    gl = "scattergl" if len(kept) + len(front) > GL_FROM else "scatter"
    traces = [_line(found)] if len(found.line) > 0 else []
    traces += _infeasible(kept[kept["infeasible"]], found, style, gl)
    traces += _groups(kept[~kept["infeasible"]], found, style, gl, solid=False, study=study)
    traces += _groups(front, found, style, "scatter", solid=True, study=study)
    traces += _names(found, style, {int(n) for n in (*kept.index, *front.index)})
    traces += _paused(paused, found, style)
    traces += _entries(found, style)
    figure = layout(y.title, x.title, "/".join([study.name, *(a.name for a in found.axes)]))
    if style.references:
        log_y = "y" in style.log
        lines = reference_lines(study, found.frame, style.dense_trial, y.name, x.name, log_y)
        figure |= {"shapes": lines[0], "annotations": lines[1]}
    for letter, axis in (("x", x), ("y", y)):
        log = letter in style.log
        figure[f"{letter}axis"] |= {"type": "log" if log else "linear"}
        if letter in style.reach:
            figure[f"{letter}axis"]["autorangeoptions"] = {"include": list(style.reach[letter])}
        if axis.name != "bits_per_byte":
            figure[f"{letter}axis"] |= {"tickformat": "~s"}
        if log:
            figure[f"{letter}axis"]["title"] = {"text": f"{axis.title} (log scale)"}
    if style.colour.numeric:
        figure["coloraxis"] = style.colour.axis()
    figure |= {"hovermode": "closest", "dragmode": "select"}
    figure["legend"] |= {"itemsizing": "constant"}
    return Drawn({"data": traces, "layout": figure}, (len(kept), len(weak)))


def thinned(frame: pd.DataFrame, most: int, keep: Collection[int]) -> pd.DataFrame:
    """At most so many of the rows, spread over all, and those to keep. A row that is drawn stays
    drawn while a study grows, or goes; the others do not flicker."""
    if len(frame) <= most:
        return frame
    order = (frame.index.to_series() * _SPREAD) % 2**32
    chosen = set(order.nsmallest(most).index) | {n for n in keep if n in frame.index}
    return frame[frame.index.isin(chosen)]


def _line(found: Points) -> Data:
    y, x = found.axes[0].name, found.axes[1].name
    rows = found.frame.loc[list(found.line)]
    two = "" if len(found.axes) == 2 else f" of {found.axes[0].column} and {found.axes[1].column}"
    return {
        "type": "scatter",
        "x": numbers(rows[x]),
        "y": numbers(rows[y]),
        "name": f"front{two}",
        "mode": "lines",
        # Between two designs one can have the quality of the cheaper: a step, not a slope.
        "line": {"color": GREY, "width": 1.5, "shape": "hv"},
        "hoverinfo": "skip",
    }


def _groups(
    rows: pd.DataFrame, found: Points, style: Style, kind: str, *, solid: bool, study: StudyRecord
) -> list[Data]:
    """A trace for each category of the colour; with a scale, one."""
    colours = style.colour.values.reindex(rows.index)
    if style.colour.numeric:
        groups = [("", rows)] if len(rows) else []
    else:
        groups = [(name, rows[colours == name]) for name in style.colour.categories]
    traces = []
    for name, own in groups:
        if len(own) == 0:
            continue
        trace = _markers(own, found, style, kind) | {"opacity": 1.0 if solid else FADED}
        if solid and len(rows) <= _MOST_TOLD:
            trace["text"] = full(study, own, found, style)
        else:
            trace |= brief(own, found, style)
        if name:
            trace |= {"name": shown(name), "legendgroup": name}
            trace["marker"]["color"] = style.colour.colour_of(name)
        trace["marker"] |= {"size": 11 if solid else 8}
        if kind == "scatter":
            trace["marker"]["line"] = {"color": "white", "width": 1 if solid else 0.5}
        if solid:
            trace |= _sureness(own, found, style)
        traces.append(trace | {"showlegend": False})
    return traces


def _markers(rows: pd.DataFrame, found: Points, style: Style, kind: str) -> Data:
    shapes = style.shape.values.reindex(rows.index)
    marks: Data = {"symbol": _same([style.shape.shape_of(each) for each in shapes])}
    if style.colour.numeric:
        marks |= {"color": style.colour.on_scale(style.colour.values.reindex(rows.index))}
        marks["coloraxis"] = "coloraxis"
    return {
        "type": kind,
        "x": numbers(rows[found.axes[1].name]),
        "y": numbers(rows[found.axes[0].name]),
        "mode": "markers",
        "customdata": [[int(number)] for number in rows.index],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marks,
    }


def _sureness(rows: pd.DataFrame, found: Points, style: Style) -> Data:
    """The probability beside each point, and the paired error to its neighbour as a bar."""
    if found.axes[0].name != "bits_per_byte":
        return {}
    known = [style.chances.get(int(number)) for number in rows.index]
    errors = [_paired_error(chance) for chance in known]
    bars = [e or rounded(n) for e, n in zip(errors, rows["noise"], strict=True)]
    bar = {"array": bars, "color": GREY, "thickness": 1, "width": 4, "visible": any(bars)}
    if len(found.front) > _MOST_LABELS or not any(known):
        return {"error_y": bar}
    # Beside the hover text, which `text` is, a label needs a template of its own.
    labels = ["" if c is None else f"{min(0.99, c.probability):.0%}" for c in known]
    labels = [
        "100%" if c is not None and c.probability >= 0.9995 else label
        for c, label in zip(known, labels, strict=True)
    ]
    data = [[int(n), label] for n, label in zip(rows.index, labels, strict=True)]
    return {
        "error_y": bar,
        "mode": "markers+text",
        "customdata": data,
        "texttemplate": "%{customdata[1]}",
        "textposition": "top right",
        "textfont": {"size": 11},
    }


def _paired_error(chance: Chance | None) -> float:
    beside = None if chance is None else chance.cheaper or chance.dearer
    return 0.0 if beside is None else float(f"{beside[1].error:.4g}")


def _infeasible(rows: pd.DataFrame, found: Points, style: Style, kind: str) -> list[Data]:
    if len(rows) == 0:
        return []
    trace = _markers(rows, found, style, kind)
    shapes = style.shape.values.reindex(rows.index)
    marks = {"symbol": _same([f"{style.shape.shape_of(each)}-open" for each in shapes])}
    trace["marker"] = marks | {"color": GREY, "size": 8}
    trace |= brief(rows, found, style, "<br>breaks a bound of the study")
    return [trace | {"name": "breaks a bound", "opacity": 0.7}]


def _paused(rows: pd.DataFrame, found: Points, style: Style) -> list[Data]:
    y, x = found.axes[0].name, found.axes[1].name
    rows = rows.dropna(subset=[y, x])
    if len(rows) == 0:
        return []
    drawn = thinned(rows, MOST_PAUSED, ())
    trace = _markers(drawn, found, style, "scatter")
    trace["marker"] |= {"size": 5}
    if not style.colour.numeric:
        colours = style.colour.values.reindex(drawn.index)
        trace["marker"]["color"] = [style.colour.colour_of(each) for each in colours]
    return [
        trace
        | {
            "text": [f"<b>#{n} {shown(d)}</b>" for n, d in drawn["design"].items()],
            "hovertemplate": "%{text}<br>%{y:.4f}, paused: it trained less<extra></extra>",
            "name": paused_name(len(drawn), len(rows)),
            "legendgroup": PAUSED,
            "visible": "legendonly",
            "opacity": FADED,
        }
    ]


def _names(found: Points, style: Style, drawn: Collection[int]) -> list[Data]:
    rows = found.frame[found.frame.index.isin(set(style.names) & set(drawn))]
    if len(rows) == 0:
        return []
    return [
        {
            "type": "scatter",
            "x": numbers(rows[found.axes[1].name]),
            "y": numbers(rows[found.axes[0].name]),
            # A mark that is not seen keeps the name off the point.
            "mode": "markers+text",
            "marker": {"size": 11, "opacity": 0},
            "text": [shown(style.names[int(number)]) for number in rows.index],
            "textposition": "bottom center",
            "textfont": {"size": 11},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def _entries(found: Points, style: Style) -> list[Data]:
    """The legend: an entry a category of colour that is there, and of shape where it differs."""
    entries = []
    if not style.colour.numeric:
        there = set(style.colour.values.reindex(found.frame.index))
        same = style.shape.name == style.colour.name
        for name in style.colour.categories:
            if name in there:
                marks = {"color": style.colour.colour_of(name), "size": 9}
                marks["symbol"] = style.shape.shape_of(name) if same else "circle"
                entries.append(_entry(name, marks))
    if style.shape.name != style.colour.name and len(style.shape.categories) > 1:
        there = set(style.shape.values.reindex(found.frame.index))
        for name in style.shape.categories:
            if name in there:
                marks = {"color": GREY, "size": 9, "symbol": style.shape.shape_of(name)}
                entries.append(_entry(f"{style.shape.name}: {name}", marks) | {"legendgroup": ""})
    return entries


def _entry(name: str, marks: Data) -> Data:
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "name": shown(name),
        "legendgroup": name,  # of a colour: its points come and go with the entry
        "marker": marks,
        "hoverinfo": "skip",
    }


def numbers(values: pd.Series) -> list[float]:
    """Five digits: more than a screen shows, and half of what a page would send."""
    return [float(f"{value:.5g}") for value in values]


def _same(items: Sequence[str]) -> str | list[str]:
    """One for all where all are alike."""
    return items[0] if len(set(items)) == 1 else list(items)
