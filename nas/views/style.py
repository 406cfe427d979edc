"""What the figures share: colours, layout, texts, and the file that they are written to."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from search_space.errors import InputError
from search_space.methods import names

# Okabe and Ito's palette, told apart with every common colour blindness; a shape doubles it.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00", "#555555")
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "hexagon")
GREY = "#888888"
PAUSED = "paused at a lower rung"
MOST_PAUSED = 500  # that are drawn: of a long study they are most, and lie over each other
_GRID = "rgba(128,128,128,0.18)"

T = TypeVar("T")
Data = dict[str, Any]  # plain data as plotly.js takes it: making Plotly's objects takes ten times


def colour(method: str) -> str:
    """A method's colour. With more than eight methods colours come again, with other symbols."""
    return PALETTE[names().index(method) % len(PALETTE)]


def symbol(method: str) -> str:
    """A method's symbol: of 64 methods no two share both colour and symbol."""
    turn, place = divmod(names().index(method), len(_SYMBOLS))
    return _SYMBOLS[(place + turn) % len(_SYMBOLS)]


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the items, at least 2, spread evenly; the first and the last are kept."""
    if len(items) <= most:
        return items
    last = len(items) - 1
    return [items[round(i * last / (most - 1))] for i in range(most)]


def paused_name(drawn: int, there: int) -> str:
    """The legend's entry of what is paused, some of which is drawn."""
    return PAUSED if drawn == there else f"{PAUSED} ({drawn:,} of {there:,})"


def ring(x: Sequence[float], y: Sequence[float | None], size: float) -> Data:
    """Rings around points; those below are the ones to hover and click."""
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": size, "color": GREY, "line": {"width": 2}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def layout(y_title: str, x_title: str, revision: str) -> Data:
    """A figure's layout. The same `revision` keeps the reader's zoom when data are refreshed."""
    axis = {"gridcolor": _GRID, "zeroline": False}
    return {
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


def write_html(figures: Sequence[Data], path: str | Path) -> Path:
    """Write figures below each other into one file that opens without a network.

    Raises InputError when it cannot be written.
    """
    from plotly.io import to_html

    path, head = Path(path), '<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>'
    # Plotly's script comes with the first one.
    parts = [
        to_html(each, include_plotlyjs=not i, full_html=False) for i, each in enumerate(figures)
    ]
    try:
        path.write_text("\n".join([head, *parts, "</body></html>\n"]), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write the figure to {path}: {error.strerror}; choose another file"
        ) from None
    return path


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


def rung_words(study_rungs: int, rung: int | None, seeds: int) -> str:
    """`rung 1, 2 seeds`; of a study of one rung only the seeds."""
    count = f"{seeds} seed" if seeds == 1 else f"{seeds} seeds"
    if rung is None or study_rungs == 1:
        return count
    top = " (top)" if rung == study_rungs - 1 else ""
    return f"rung {rung}{top}, {count}"
