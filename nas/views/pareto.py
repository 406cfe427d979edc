"""The Pareto scatter, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nas.search.bounds import excess, limits, words
from nas.search.objectives import Objective, objective, objective_values, shown_objectives
from nas.search.pareto import frontier
from nas.store.records import StudyRecord, TrialRecord
from nas.views.noise import noise
from nas.views.style import (
    GREY,
    MOST_PAUSED,
    PAUSED,
    Data,
    colour,
    layout,
    paused_name,
    ring,
    rung_words,
    shown,
    si,
    spread,
    symbol,
)
from search_space.contract import Status
from search_space.methods import names

_FADED = 0.3

Point = tuple[float, float, TrialRecord]


def pareto_data(
    study: StudyRecord, trials: Sequence[TrialRecord], chosen: int | None = None
) -> Data:
    """Quality (y) against cost (x, log scale) of the trials that were measured at the top rung.

    y is the study's first objective and x its second (active FLOPs when it has one); the line
    is the frontier of these two. Points that are dominated in all the study's objectives are
    faded, those that break a bound as measured are hollow and grey, and the trial of number
    `chosen` is ringed. Bars are `noise`. Paused trials trained less, so they compare with none of
    these: they are hidden until the reader asks for them in the legend.
    A point's `customdata` is [trial number].
    """
    y, x = (objective(name) for name in _axes(study))
    points, bounds = _points(trials, y, x), limits(study)
    over = {trial.number: excess(trial, bounds) for _, _, trial in points}
    feasible = [point for point in points if not over[point[2].number]]
    kept = {trial.number for trial in frontier([p[2] for p in feasible], study.objectives)}
    traces = [_front([trial for _, _, trial in feasible], y, x)]
    traces.append(_infeasible([point for point in points if over[point[2].number]], over, study))
    for method in names():
        mine = [point for point in feasible if point[2].spec.method == method]
        front = [point for point in mine if point[2].number in kept]
        dominated = [point for point in mine if point[2].number not in kept]
        traces.append(_method(study, method, front, y, faded=False, legend=True))
        traces.append(_method(study, method, dominated, y, faded=True, legend=not front))
    ringed = [point for point in points if point[2].number == chosen]
    traces += [ring([cost], [value], 22) for cost, value, _ in ringed]
    paused = _paused(study, trials, y, x)
    traces.append(paused)
    low, high = _y_range(study, points, y)
    found = layout(y.title, f"{x.title} (log scale)", revision=study.name)
    found |= _ngrams(study, low, high)
    found["xaxis"] |= {"type": "log", "tickformat": "~s"}
    # With hidden points the axis must be free to grow when they are shown.
    free = {"autorangeoptions": {"include": [low, high]}}
    found["yaxis"] |= free if paused["x"] else {"range": [low, high]}
    return {"data": [trace for trace in traces if trace["x"]], "layout": found}


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
        "line": {"color": GREY, "width": 1.5, "shape": "hv"},
        "hoverinfo": "skip",
    }


def _method(
    study: StudyRecord,
    method: str,
    points: Sequence[Point],
    y: Objective,
    *,
    faded: bool,
    legend: bool,
) -> Data:
    errors = [_error(study, trial, y) for _, _, trial in points]
    return _markers(points, [_hover(study, trial) for _, _, trial in points]) | {
        "name": method,
        "legendgroup": method,
        "showlegend": legend,
        "opacity": _FADED if faded else 1.0,
        "marker": {
            "color": colour(method),
            "symbol": symbol(method),
            "size": 8 if faded else 11,
            "line": {"color": "white", "width": 1},
        },
        "error_y": {
            "array": errors,
            "color": colour(method),
            "thickness": 1,
            "width": 3,
            "visible": any(errors),
        },
    }


def _infeasible(
    points: Sequence[Point], over: Mapping[int, Mapping[str, float]], study: StudyRecord
) -> Data:
    texts = [
        f"{_hover(study, trial)}<br>infeasible: {shown(words(over[trial.number]))}"
        for _, _, trial in points
    ]
    return _markers(points, texts) | {
        "name": "breaks a bound",
        "marker": {
            "color": GREY,
            "symbol": [f"{symbol(trial.spec.method)}-open" for _, _, trial in points],
            "size": 8,
        },
    }


def _paused(study: StudyRecord, trials: Sequence[TrialRecord], y: Objective, x: Objective) -> Data:
    points = []
    for trial in trials:
        cost, value = x.value(trial), y.value(trial)
        if trial.status is Status.PAUSED and cost and value is not None:
            points.append((cost, value, trial))
    drawn = spread(points, MOST_PAUSED)
    # Without their costs: seldom looked at, they would be most of what a page sends.
    return _markers(drawn, [_measure(study, trial) for _, _, trial in drawn]) | {
        "name": paused_name(len(drawn), len(points)),
        "legendgroup": PAUSED,
        "visible": "legendonly",
        "opacity": _FADED,
        "marker": {
            "color": [colour(trial.spec.method) for _, _, trial in drawn],
            "symbol": [symbol(trial.spec.method) for _, _, trial in drawn],
            "size": 5,
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


def _error(study: StudyRecord, trial: TrialRecord, y: Objective) -> float:
    return (noise(study, trial) or 0.0) if y.name == "bits_per_byte" else 0.0


def _hover(study: StudyRecord, trial: TrialRecord) -> str:
    lines = [_measure(study, trial)]
    for cost in shown_objectives(study.objectives, "hover"):
        value = cost.value(trial) if cost.name != "bits_per_byte" else None
        if value is not None:
            lines.append(f"{cost.title}: {si(value)}")
    return "<br>".join(lines)


def _measure(study: StudyRecord, trial: TrialRecord) -> str:
    title = f"<b>#{trial.number} {shown(trial.spec.label)}</b>"
    if trial.bits_per_byte is None:
        return title
    error = noise(study, trial)
    spread = "" if error is None else f" ± {error:.4f}"
    where = rung_words(study.rungs, trial.rung, trial.seeds)
    return f"{title}<br>{trial.bits_per_byte:.4f}{spread} bits/byte<br>{where}"


def _y_range(study: StudyRecord, points: Sequence[Point], y: Objective) -> tuple[float, float]:
    if not points:
        return 0.0, 1.0
    low = min(value - _error(study, trial, y) for _, value, trial in points)
    high = max(value + _error(study, trial, y) for _, value, trial in points)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _ngrams(study: StudyRecord, low: float, high: float) -> Data:
    """A line for each baseline that lies in the range."""
    measured = study.objectives[0] == "bits_per_byte"
    baselines = study.facts.ngram_bits_per_byte if measured else {}
    drawn = {order: value for order, value in baselines.items() if low < value < high}
    across = {"xref": "x domain", "yref": "y"}
    line = {"type": "line", "x0": 0, "x1": 1, "line": {"dash": "dot", "color": GREY, "width": 1}}
    note = {"x": 1, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    note |= {"font": {"size": 11, "color": GREY}}
    return {
        "shapes": [across | line | {"y0": value, "y1": value} for value in drawn.values()],
        "annotations": [
            across | note | {"y": value, "text": f"{shown(order)}-gram {value:.2f}"}
            for order, value in drawn.items()
        ],
    }
