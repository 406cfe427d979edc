"""The figures: the Pareto scatter and the training curves, as plain data and as Plotly figures.

Plotly is imported when a figure is made, so that importing this module costs nothing.
"""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.bounds import excess, limits, words
from nas.objectives import Objective, objective, objective_values
from nas.pareto import frontier
from nas.store.records import StudyRecord, TrialRecord
from search_space.contract import Progress
from search_space.errors import InputError
from search_space.spec import SELECTIONS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's palette, told apart with every common colour blindness; a shape doubles it.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00", "#555555")
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "hexagon")
COLOURS: dict[str, str] = dict(zip(SELECTIONS, _PALETTE, strict=True))
SYMBOLS: dict[str, str] = dict(zip(SELECTIONS, _SYMBOLS, strict=True))
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_FADED = 0.3
CURVE_POINTS = 300  # of one curve that are drawn: a page is not much wider
_GREY = "#888888"
_GRID = "rgba(128,128,128,0.18)"

Data = dict[str, Any]  # plain data as plotly.js takes it: making Plotly's objects takes ten times
Point = tuple[float, float, TrialRecord]


def pareto_figure(
    study: StudyRecord, trials: Sequence[TrialRecord], chosen: int | None = None
) -> Figure:
    """`pareto_data` as Plotly's own object."""
    import plotly.graph_objects as go

    return go.Figure(pareto_data(study, trials, chosen))


def pareto_data(
    study: StudyRecord, trials: Sequence[TrialRecord], chosen: int | None = None
) -> Data:
    """Quality (y) against cost (x, log scale) of the finished trials.

    y is the study's first objective and x its second (active FLOPs when it has one); the line
    is the frontier of these two. Points that are dominated in all the study's objectives are
    faded, those that break a bound as measured are hollow and grey, and the trial of number
    `chosen` is ringed. A point's `customdata` is [trial number].
    """
    y, x = (objective(name) for name in _axes(study))
    points, bounds = _points(trials, y, x), limits(study)
    over = {trial.number: excess(trial, bounds) for _, _, trial in points}
    feasible = [point for point in points if not over[point[2].number]]
    kept = {trial.number for trial in frontier([p[2] for p in feasible], study.objectives)}
    traces = [_front([trial for _, _, trial in feasible], y, x)]
    traces.append(_infeasible([point for point in points if over[point[2].number]], over))
    for method in SELECTIONS:
        mine = [point for point in feasible if point[2].spec.method == method]
        front = [point for point in mine if point[2].number in kept]
        dominated = [point for point in mine if point[2].number not in kept]
        traces.append(_method(method, front, y, faded=False, legend=True))
        traces.append(_method(method, dominated, y, faded=True, legend=not front))
    traces += [_ring(point) for point in points if point[2].number == chosen]
    low, high = _y_range(points, y)
    layout = _layout(y.title, f"{x.title} (log scale)", revision=study.name)
    layout |= _ngrams(study, low, high)
    layout["xaxis"] |= {"type": "log", "tickformat": "~s"}
    layout["yaxis"] |= {"range": [low, high]}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def curves_data(curves: Mapping[int, Sequence[Progress]], trials: Sequence[TrialRecord]) -> Data:
    """Training loss (nats a token) against training FLOPs.

    curves: trial number -> points.  trials: those to draw, in this order.
    """
    traces: list[Data] = []
    seen: dict[str, int] = defaultdict(int)
    for trial in trials:
        points = thinned(curves.get(trial.number, ()))
        dash = _DASHES[seen[trial.spec.method] % len(_DASHES)]
        seen[trial.spec.method] += 1
        traces.append(
            {
                "type": "scatter",
                "x": [point.flops for point in points],
                "y": [point.loss for point in points],
                "name": f"#{trial.number} {shown(trial.spec.label)}",
                "mode": "lines+markers" if len(points) < 3 else "lines",
                "line": {"color": COLOURS[trial.spec.method], "dash": dash, "width": 2},
                "hovertemplate": "%{y:.3f} nats/token at %{x:.3s}FLOPs",
            }
        )
    layout = _layout("Training loss (nats per token)", "Training FLOPs", revision="curves")
    layout["xaxis"] |= {"tickformat": "~s", "rangemode": "tozero"}
    layout |= {"showlegend": True, "hovermode": "closest"}
    return {"data": traces, "layout": layout}


def thinned(points: Sequence[Progress]) -> Sequence[Progress]:
    """At most CURVE_POINTS of a curve's points, spread evenly; the first and the last are kept."""
    if len(points) <= CURVE_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]


def write_html(figure: Figure, path: str | Path) -> Path:
    """Write one file that opens without a network; raise InputError when it cannot be written."""
    path = Path(path)
    try:
        figure.write_html(path, include_plotlyjs=True, full_html=True)
    except OSError as error:
        raise InputError(
            f"cannot write the figure to {path}: {error.strerror}; choose another file"
        ) from None
    return path


def _axes(study: StudyRecord) -> tuple[str, str]:
    y = study.objectives[0]
    fallback = "bits_per_byte" if y == "active_flops" else "active_flops"
    return y, study.objectives[1] if len(study.objectives) > 1 else fallback


def _points(trials: Sequence[TrialRecord], y: Objective, x: Objective) -> list[Point]:
    found = []
    for trial in trials:
        values = objective_values(trial, [y.name, x.name])
        if values is not None and values[1] > 0:  # a log axis has no 0
            found.append((values[1], values[0], trial))
    return found


def _front(trials: Sequence[TrialRecord], y: Objective, x: Objective) -> Data:
    front = frontier(trials, [y.name, x.name])
    return {
        "type": "scatter",
        "x": [x.value(trial) for trial in front],
        "y": [y.value(trial) for trial in front],
        "name": "Pareto frontier",
        "mode": "lines",
        # Between two designs one can have the quality of the cheaper: a step, not a slope.
        "line": {"color": _GREY, "width": 1.5, "shape": "hv"},
        "hoverinfo": "skip",
    }


def _method(
    method: str, points: Sequence[Point], y: Objective, *, faded: bool, legend: bool
) -> Data:
    errors = [_standard_error(trial, y) for _, _, trial in points]
    colour = COLOURS[method]
    return _markers(points, [_hover(trial) for _, _, trial in points]) | {
        "name": method,
        "legendgroup": method,
        "showlegend": legend,
        "opacity": _FADED if faded else 1.0,
        "marker": {
            "color": colour,
            "symbol": SYMBOLS[method],
            "size": 8 if faded else 11,
            "line": {"color": "white", "width": 1},
        },
        "error_y": {
            "array": errors,
            "color": colour,
            "thickness": 1,
            "width": 3,
            "visible": any(errors),
        },
    }


def _infeasible(points: Sequence[Point], over: Mapping[int, Mapping[str, float]]) -> Data:
    texts = [
        f"{_hover(trial)}<br>infeasible: {shown(words(over[trial.number]))}"
        for _, _, trial in points
    ]
    return _markers(points, texts) | {
        "name": "breaks a bound",
        "marker": {
            "color": _GREY,
            "symbol": [f"{SYMBOLS[trial.spec.method]}-open" for _, _, trial in points],
            "size": 8,
        },
    }


def _markers(points: Sequence[Point], texts: Sequence[str]) -> Data:
    return {
        "type": "scatter",
        "x": [point[0] for point in points],
        "y": [point[1] for point in points],
        "mode": "markers",
        "customdata": [[trial.number] for _, _, trial in points],
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _ring(point: Point) -> Data:
    return {
        "type": "scatter",
        "x": [point[0]],
        "y": [point[1]],
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 22, "color": _GREY, "line": {"width": 2}},
        "hoverinfo": "skip",  # the point below is the one to hover and click
        "showlegend": False,
    }


def _standard_error(trial: TrialRecord, y: Objective) -> float:
    if y.name != "bits_per_byte" or trial.result is None:
        return 0.0
    return trial.result.bits_per_byte_se or 0.0


def _hover(trial: TrialRecord) -> str:
    lines = [f"<b>#{trial.number} {shown(trial.spec.label)}</b>"]
    if trial.result is not None and trial.result.bits_per_byte is not None:
        error = trial.result.bits_per_byte_se
        spread = "" if error is None else f" ± {error:.4f}"
        lines.append(f"{trial.result.bits_per_byte:.4f}{spread} bits/byte")
    for name in ("active_flops", "total_params", "active_params"):
        cost = objective(name)
        value = cost.value(trial)
        if value is not None:
            lines.append(f"{cost.title}: {si(value)}")
    return "<br>".join(lines)


def _y_range(points: Sequence[Point], y: Objective) -> tuple[float, float]:
    if not points:
        return 0.0, 1.0
    low = min(value - _standard_error(trial, y) for _, value, trial in points)
    high = max(value + _standard_error(trial, y) for _, value, trial in points)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _ngrams(study: StudyRecord, low: float, high: float) -> Data:
    """A line for each baseline that lies in the range."""
    baselines: dict[str, Any] = study.facts.get("ngram_bits_per_byte", {})
    if study.objectives[0] != "bits_per_byte":
        baselines = {}
    drawn = {
        order: value
        for order, value in baselines.items()
        if isinstance(value, int | float) and low < value < high
    }
    across = {"xref": "x domain", "yref": "y"}
    line = {"type": "line", "x0": 0, "x1": 1, "line": {"dash": "dot", "color": _GREY, "width": 1}}
    note = {"x": 1, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    note |= {"font": {"size": 11, "color": _GREY}}
    return {
        "shapes": [across | line | {"y0": value, "y1": value} for value in drawn.values()],
        "annotations": [
            across | note | {"y": value, "text": f"{shown(order)}-gram {value:.2f}"}
            for order, value in drawn.items()
        ],
    }


def _layout(y_title: str, x_title: str, revision: str) -> Data:
    axis = {"gridcolor": _GRID, "zeroline": False}
    return {
        # The same revision keeps the reader's zoom when the data are refreshed.
        "uirevision": revision,
        "template": _template(),
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "hoverlabel": {"align": "left"},
        "xaxis": axis | {"title": {"text": x_title}},
        "yaxis": axis | {"title": {"text": y_title}},
    }


@cache
def _template() -> Data:
    import plotly.io

    template: Data = plotly.io.templates["plotly_white"].to_plotly_json()
    return template


def shown(text: str) -> str:
    """A text that Plotly draws as it is: it would read tags and entities in it."""
    return html.escape(str(text), quote=False)


def si(value: float, digits: int = 3) -> str:
    """A number for people: 1234567 -> `1.23M`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    power = min(max(math.floor(math.log10(abs(value)) / 3), 0), 6)
    scaled = value / 1000**power
    if power < 6 and float(f"{abs(scaled):.{digits}g}") >= 1000:  # 999.9k rounds up to 1M
        power, scaled = power + 1, scaled / 1000
    return f"{scaled:.{digits}g}{('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}"
