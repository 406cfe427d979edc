"""All knobs and objectives side by side: a line a design."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard.data.at_rung import AtRung
from dashboard.data.levels import is_number, levels
from nas.search.objectives import OBJECTIVES
from nas.views.style import GREY, Data, colour, layout, shown, si, spread, symbol

MOST_LINES = 2000  # that are drawn; the front is, always
WEBGL_FROM = 2000  # points
FRONT = "on the frontier"
_SPREAD = 0.03  # of an axis, over which the designs of one word are drawn
_LOG_FROM = 30.0  # the largest number by the smallest, from which an axis is logarithmic

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Axis:
    """One upright axis.

    places: of the designs, from 0 (bottom) to 1; NaN for one without the knob.
    ticks: places and words along it.
    words: what a design has, for the text over a point.
    """

    title: str
    places: Floats
    ticks: tuple[tuple[float, str], ...]
    words: list[str]


def parallel_figure(
    there: AtRung,
    shown_knobs: Sequence[str],
    methods: pd.Series,
    front: Collection[int],
    revision: str,
) -> Data:
    """Lines through the method, the knobs that differ and the objectives; a gap where a design has
    no such knob. Colour is the method's; the study's frontier is thick, the others are faint.

    shown_knobs: the axes, from left to right; the objectives' follow.
    methods: by trial.
    front: the frontier's trials.
    A point's `customdata` is [trial number], None in a gap.
    """
    numbers = there.values.index.to_numpy()
    kept = np.flatnonzero(np.isfinite(there.values.to_numpy(dtype=float)).all(axis=1))
    first = np.isin(numbers[kept], list(front))
    rows = sorted([*spread(kept[~first].tolist(), MOST_LINES), *kept[first].tolist()])
    knobs, values = there.knobs.iloc[rows][list(shown_knobs)], there.values.iloc[rows]
    axes = [_knob_axis(name, knobs[name]) for name in knobs.columns]
    axes += [_objective_axis(name, values[name]) for name in values.columns]
    found = _frame(axes, revision)
    if not rows:
        return {"data": [], "layout": found}

    own = methods.loc[values.index].to_numpy()
    best = np.isin(values.index.to_numpy(), list(front))
    heavy = len(rows) * len(axes) > WEBGL_FROM
    traces = []
    for thick in (False, True):
        for method in sorted(set(own)):
            mine = np.flatnonzero((own == method) & (best == thick))
            if len(mine):
                traces.append(_lines(axes, values.index[mine], mine, method, thick, heavy))
    traces += [_entry(method, colour(method), symbol(method)) for method in sorted(set(own))]
    traces.append(_entry(FRONT, GREY, None))
    return {"data": traces, "layout": found}


def _lines(
    axes: list[_Axis],
    numbers: pd.Index,
    mine: npt.NDArray[np.int64],
    method: str,
    thick: bool,
    heavy: bool,
) -> Data:
    """The designs of a method as one trace, with gaps: thousands of traces would be slow."""
    width = len(axes) + 1
    x = np.tile(np.arange(width, dtype=float), (len(mine), 1))
    y = np.full((len(mine), width), np.nan)
    for i, axis in enumerate(axes):
        y[:, i] = np.round(axis.places[mine], 4)
    texts = np.full((len(mine), width), "", dtype=object)
    for i, axis in enumerate(axes):
        texts[:, i] = [axis.words[row] for row in mine]
    customdata = [
        None if gap else [number]
        for number in numbers.tolist()
        for gap in [*[False] * len(axes), True]
    ]
    return {
        "type": "scattergl" if heavy else "scatter",
        "mode": "lines+markers",
        "x": [None if at == len(axes) else at for at in x.astype(int).ravel().tolist()],
        "y": [None if np.isnan(each) else each for each in y.ravel().tolist()],
        "customdata": customdata,
        "text": texts.ravel().tolist(),
        "hovertemplate": "#%{customdata[0]}<br>%{text}<extra></extra>",
        "name": method,
        "legendgroup": method,
        "showlegend": False,
        "opacity": 0.95 if thick else 0.25,
        "line": {"color": colour(method), "width": 4 if thick else 1},
        "marker": {"color": colour(method), "symbol": symbol(method), "size": 9 if thick else 4},
    }


def _entry(name: str, colour: str, symbol: str | None) -> Data:
    """The legend's: the lines themselves are too faint for it."""
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "name": name,
        "legendgroup": name,
        "mode": "lines" if symbol is None else "lines+markers",
        "line": {"color": colour, "width": 4 if symbol is None else 2},
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        "hoverinfo": "skip",
    }


def _knob_axis(name: str, column: pd.Series) -> _Axis:
    if is_number(column) and column.nunique() > 1:
        numbers = column.to_numpy(dtype=float)
        return _number_axis(name, numbers, _short)
    own = levels(column)
    last = max(len(own.names) - 1, 1)
    noise = np.random.default_rng(0).uniform(-_SPREAD, _SPREAD, len(column))
    places = np.where(own.codes < 0, np.nan, own.codes / last + noise / max(last / 3, 1))
    words = [f"{name}: {own.names[code]}" if code >= 0 else "" for code in own.codes]
    ticks = tuple((i / last, text) for i, text in enumerate(own.names))
    return _Axis(name, places, ticks, [shown(text) for text in words])


def _objective_axis(name: str, column: pd.Series) -> _Axis:
    title = OBJECTIVES[name].title if name in OBJECTIVES else name
    return _number_axis(title, column.to_numpy(dtype=float), _short)


def _short(value: float) -> str:
    return si(value) if abs(value) >= 1000 else f"{value:.4g}"


def _number_axis(title: str, numbers: Floats, text: Callable[[float], str]) -> _Axis:
    known = numbers[np.isfinite(numbers)]
    low, high = float(known.min()), float(known.max())
    log = low > 0 and high / low >= _LOG_FROM
    scaled = np.log(numbers) if log else numbers
    bottom, top = (np.log(low), np.log(high)) if log else (low, high)
    places = (scaled - bottom) / ((top - bottom) or 1.0)
    middle = float(np.exp((bottom + top) / 2)) if log else (low + high) / 2
    ticks = ((0.0, text(low)), (0.5, text(middle)), (1.0, text(high)))
    words = [f"{title}: {text(each)}" if np.isfinite(each) else "" for each in numbers]
    return _Axis(title, places, ticks, [shown(each) for each in words])


def _frame(axes: list[_Axis], revision: str) -> Data:
    found = layout("", "", revision)
    last = len(axes) - 1
    found["yaxis"] |= {"visible": False, "range": [-0.1, 1.1], "fixedrange": True}
    found["xaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(axes))),
        "tickangle": 0,
        "ticktext": [shown(axis.title).replace(" ", "<br>") for axis in axes],
        "range": [-0.4, last + 0.6],
        "side": "top",
        "gridcolor": "rgba(128,128,128,0.6)",
        "fixedrange": True,
    }
    found["margin"] = {"l": 10, "r": 10, "t": 90, "b": 50}
    found["legend"] |= {"y": -0.02, "yanchor": "top"}
    found["hovermode"] = "closest"
    note = {"xref": "x", "yref": "y", "showarrow": False, "xanchor": "left", "xshift": 4}
    found["annotations"] = [
        note | {"x": i, "y": place, "text": shown(text), "font": {"size": 11}}
        for i, axis in enumerate(axes)
        for place, text in axis.ticks
    ]
    return found
