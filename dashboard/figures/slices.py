"""One knob, or two, against an objective."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dashboard.data.at_rung import AtRung
from dashboard.data.levels import Levels, is_number, levels
from nas.search.objectives import OBJECTIVES
from nas.views.style import Data, colour, layout, shown, si, spread, symbol

MOST_POINTS = 2000  # that are drawn; past that, evenly spread ones
_LOG_FROM = 10.0  # the largest number by the smallest, from which an axis is logarithmic
_NARROW = 0.25  # of a level, over which points are spread that would lie over each other


def slice_figure(there: AtRung, objective: str, knob: str, methods: pd.Series, rev: str) -> Data:
    """A point a design: the objective (y) against one knob (x), coloured by method.

    methods: by trial. A point's `customdata` is [trial number].
    """
    have = there.knobs[knob].notna() & np.isfinite(there.values[objective])
    rows = list(spread(np.flatnonzero(have.to_numpy()).tolist(), MOST_POINTS))
    values, knobs = there.values.iloc[rows], there.knobs.iloc[rows]
    title = _title(objective)
    found = layout(title, knob, rev)
    found["hovermode"] = "closest"
    found["yaxis"] |= _scale(values[objective])
    column = knobs[knob]
    if is_number(column):
        x, names = column.astype(float), column.map(lambda value: f"{value:.4g}")
        found["xaxis"] |= _scale(x)
    else:
        own = levels(column)
        noise = np.random.default_rng(0).uniform(-_NARROW, _NARROW, len(column))
        x = pd.Series(own.codes + noise, index=column.index)
        names = pd.Series([own.names[code] for code in own.codes], index=column.index)
        found["xaxis"] |= _places(own)
    drawn = methods.loc[knobs.index]
    measures, traces = values[objective], []
    for method in sorted(drawn.unique()):
        mine = drawn.index[drawn == method]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": method,
                "x": x[mine].tolist(),
                "y": values.loc[mine, objective].tolist(),
                "customdata": [[int(number)] for number in mine],
                "text": [
                    f"<b>#{number}</b><br>{shown(knob)}: {shown(names[number])}"
                    f"<br>{title}: {_number(objective, measures[number])}"
                    for number in mine
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": colour(method), "symbol": symbol(method), "size": 8},
                "opacity": 0.75,
            }
        )
    return {"data": traces, "layout": found}


def heat_figure(there: AtRung, objective: str, across: str, up: str, rev: str) -> Data:
    """The median of an objective in each cell of two knobs' levels, with the number of designs."""
    values = there.values[objective]
    x, y = levels(there.knobs[across]), levels(there.knobs[up])
    have = (x.codes >= 0) & (y.codes >= 0) & np.isfinite(values.to_numpy())
    cells = values[have].groupby([y.codes[have], x.codes[have]]).agg(["median", "min", "size"])
    shape = (len(y.names), len(x.names))
    middle, counts = np.full(shape, np.nan), np.zeros(shape, dtype=int)
    texts = [["" for _ in x.names] for _ in y.names]
    hovers = [
        [f"{_pair(x, y, i, j)}<br>no design" for i in range(shape[1])] for j in range(shape[0])
    ]
    for (j, i), cell in cells.iterrows():
        middle[j, i], counts[j, i] = cell["median"], int(cell["size"])
        shown_median = _number(objective, cell["median"])
        texts[j][i] = f"{shown_median}<br>n {int(cell['size']):,}"
        hovers[j][i] = (
            f"{_pair(x, y, i, j)}<br>median {shown_median}, "
            f"best {_number(objective, cell['min'])}<br>{int(cell['size']):,} designs"
        )
    found = layout(up, across, rev)
    found["xaxis"] |= _places(x) | {"showgrid": False}
    found["yaxis"] |= _places(y) | {"showgrid": False, "automargin": True}
    bar: Data = {"title": {"text": f"Median of<br>{_title(objective)}"}, "thickness": 14}
    if objective != "bits_per_byte":
        bar["tickformat"] = "~s"
    heat = {
        "type": "heatmap",
        "x": list(range(shape[1])),
        "y": list(range(shape[0])),
        "z": [[None if np.isnan(cell) else float(cell) for cell in line] for line in middle],
        "text": texts,
        "texttemplate": "%{text}" if counts.size <= 80 else "",
        "hovertext": hovers,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "colorscale": "Cividis",  # told apart with every common colour blindness
        "reversescale": True,
        "xgap": 2,
        "ygap": 2,
        "colorbar": bar,
    }
    return {"data": [heat] if counts.any() else [], "layout": found}


def _pair(x: Levels, y: Levels, i: int, j: int) -> str:
    return f"{shown(x.names[i])}, {shown(y.names[j])}"


def _places(own: Levels) -> Data:
    names = [shown(name) for name in own.names]
    return {
        "type": "linear",
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "range": [-0.5, len(names) - 0.5],
    }


def _scale(values: pd.Series) -> Data:
    low, high = values.min(), values.max()
    if low > 0 and high / low >= _LOG_FROM:
        return {"type": "log", "tickformat": "~s"}
    return {"tickformat": "~s"} if abs(high) >= 10_000 else {}


def _title(objective: str) -> str:
    return OBJECTIVES[objective].title if objective in OBJECTIVES else objective


def _number(objective: str, value: float) -> str:
    return f"{value:.4f}" if objective == "bits_per_byte" else si(value)
