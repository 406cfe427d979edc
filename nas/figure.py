"""The figures: the Pareto scatter and the training curves, as Plotly figures.

Plotly is imported when a figure is made, so that importing this module costs nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_GREY = "#888888"
_GRID = "rgba(128,128,128,0.18)"

Point = tuple[float, float, TrialRecord]


def pareto_figure(
    study: StudyRecord, trials: Sequence[TrialRecord], chosen: int | None = None
) -> Figure:
    """Quality (y) against cost (x, log scale) of the finished trials.

    y is the study's first objective and x its second (active FLOPs when it has one); the line
    is the frontier of these two. Points that are dominated in all the study's objectives are
    faded, and the trial of number `chosen` is ringed. A point's `customdata` is [trial number].
    """
    import plotly.graph_objects as go

    y, x = (objective(name) for name in _axes(study))
    points = _points(trials, y, x)
    kept = {trial.number for trial in frontier(trials, study.objectives)}
    figure = go.Figure()
    _add_front(figure, [trial for _, _, trial in points], y, x)
    for method in SELECTIONS:
        mine = [point for point in points if point[2].spec.method == method]
        front = [point for point in mine if point[2].number in kept]
        dominated = [point for point in mine if point[2].number not in kept]
        _add_method(figure, method, front, y, faded=False, legend=True)
        _add_method(figure, method, dominated, y, faded=True, legend=not front)
    _add_ring(figure, [point for point in points if point[2].number == chosen])
    low, high = _y_range(points, y)
    _add_ngrams(figure, study, low, high)
    _style(figure, y.title, f"{x.title} (log scale)", revision=study.name)
    figure.update_xaxes(type="log", tickformat="~s")
    figure.update_yaxes(range=[low, high])
    return figure


def curves_figure(
    curves: Mapping[int, Sequence[Progress]], trials: Sequence[TrialRecord]
) -> Figure:
    """Training loss (nats a token) against training FLOPs.

    curves: trial number -> points.  trials: those to draw, in this order.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    seen: dict[str, int] = defaultdict(int)
    for trial in trials:
        points = curves.get(trial.number, ())
        dash = _DASHES[seen[trial.spec.method] % len(_DASHES)]
        seen[trial.spec.method] += 1
        figure.add_scatter(
            x=[point.flops for point in points],
            y=[point.loss for point in points],
            name=f"#{trial.number} {trial.spec.label}",
            mode="lines+markers" if len(points) < 3 else "lines",
            line={"color": COLOURS[trial.spec.method], "dash": dash, "width": 2},
            hovertemplate="%{y:.3f} nats/token at %{x:.3s}FLOPs",
        )
    _style(figure, "Training loss (nats per token)", "Training FLOPs", revision="curves")
    figure.update_xaxes(tickformat="~s", rangemode="tozero")
    figure.update_layout(showlegend=True, hovermode="closest")
    return figure


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


def _add_front(figure: Figure, trials: Sequence[TrialRecord], y: Objective, x: Objective) -> None:
    front = frontier(trials, [y.name, x.name])
    if not front:
        return
    figure.add_scatter(
        x=[x.value(trial) for trial in front],
        y=[y.value(trial) for trial in front],
        name="Pareto frontier",
        mode="lines",
        # Between two designs one can have the quality of the cheaper: a step, not a slope.
        line={"color": _GREY, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )


def _add_method(
    figure: Figure, method: str, points: Sequence[Point], y: Objective, *, faded: bool, legend: bool
) -> None:
    if not points:
        return
    errors = [_standard_error(trial, y) for _, _, trial in points]
    colour = COLOURS[method]
    figure.add_scatter(
        x=[point[0] for point in points],
        y=[point[1] for point in points],
        name=method,
        mode="markers",
        legendgroup=method,
        showlegend=legend,
        opacity=_FADED if faded else 1.0,
        marker={
            "color": colour,
            "symbol": SYMBOLS[method],
            "size": 8 if faded else 11,
            "line": {"color": "white", "width": 1},
        },
        error_y={
            "array": errors,
            "color": colour,
            "thickness": 1,
            "width": 3,
            "visible": any(errors),
        },
        customdata=[[trial.number] for _, _, trial in points],
        text=[_hover(trial) for _, _, trial in points],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_ring(figure: Figure, points: Sequence[Point]) -> None:
    for x, y, _ in points:
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker={"symbol": "circle-open", "size": 22, "color": _GREY, "line": {"width": 2}},
            hoverinfo="skip",  # the point below is the one to hover and click
            showlegend=False,
        )


def _standard_error(trial: TrialRecord, y: Objective) -> float:
    if y.name != "bits_per_byte" or trial.result is None:
        return 0.0
    return trial.result.bits_per_byte_se or 0.0


def _hover(trial: TrialRecord) -> str:
    lines = [f"<b>#{trial.number} {trial.spec.label}</b>"]
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


def _add_ngrams(figure: Figure, study: StudyRecord, low: float, high: float) -> None:
    if study.objectives[0] != "bits_per_byte":
        return
    baselines: dict[str, Any] = study.facts.get("ngram_bits_per_byte", {})
    for order, value in baselines.items():
        if isinstance(value, int | float) and low < value < high:
            figure.add_hline(
                y=value,
                line={"dash": "dot", "color": _GREY, "width": 1},
                annotation={
                    "text": f"{order}-gram {value:.2f}",
                    "font": {"size": 11, "color": _GREY},
                },
                annotation_position="top right",
            )


def _style(figure: Figure, y_title: str, x_title: str, revision: str) -> None:
    figure.update_layout(
        # The same revision keeps the reader's zoom when the data are refreshed.
        uirevision=revision,
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title=x_title, gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(title=y_title, gridcolor=_GRID, zeroline=False)


def si(value: float, digits: int = 3) -> str:
    """A number for people: 1234567 -> `1.23M`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    power = min(max(math.floor(math.log10(abs(value)) / 3), 0), 6)
    scaled = value / 1000**power
    if power < 6 and float(f"{abs(scaled):.{digits}g}") >= 1000:  # 999.9k rounds up to 1M
        power, scaled = power + 1, scaled / 1000
    return f"{scaled:.{digits}g}{('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}"
