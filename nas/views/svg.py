"""A figure as SVG: what Plotly would draw of the same data, for pages that carry no script.

It draws what the figures of `nas.views` have: scatters of lines and markers, error bars, steps,
log axes, level lines with notes, and a legend. Hidden traces are left out.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from nas.views.style import GREY, Data, si, spread
from nas.views.svg_marks import mark

WIDTH, HEIGHT = 900, 460
MOST_POINTS = 2_000  # of a trace: more lie over each other, and are most of a file
_LEFT, _RIGHT, _BOTTOM, _TITLE, _ROW = 72, 20, 60, 26, 20
_ROOM = 0.04  # of an axis, beyond its outermost points
_LETTER = 7.0  # pixels, about
_DASHES = {"dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 4"}
_TAG = re.compile(r"<[^>]*>")
_FAINT = 'stroke="currentColor" stroke-opacity="0.13"'


@dataclass(frozen=True)
class _Axis:
    """From values to pixels.

    low, high: of the values, or of their logarithms.
    start, end: pixels.
    ticks: values with what is written beside them.
    """

    log: bool
    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[tuple[float, str]]

    def at(self, value: float) -> float:
        """Where a value lies."""
        if self.log:
            value = math.log10(value) if value > 0 else self.low
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def figure_svg(
    figure: Data,
    title: str,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    linked: Collection[int] = (),
    alone: bool = True,
) -> str:
    """The figure.

    figure: {"data", "layout"} as plotly.js takes it.
    title: above it, and what it is for those who do not see it.
    size: in pixels.
    linked: trials whose points lead to `#trial-N`.
    alone: as a file of its own, on white; else part of a page, in that page's colours.
    """
    width, height = size
    traces = [each for each in figure["data"] if each.get("visible", True) is True]
    legend = list(_legend(traces, width))
    rows = 1 + max((row for _, row, _ in legend), default=-1)
    x = _axis(traces, figure["layout"], "x", (_LEFT, width - _RIGHT))
    y = _axis(traces, figure["layout"], "y", (height - _BOTTOM, _TITLE + rows * _ROW + 10))
    ink = ' color="#31333f"' if alone else ""
    role = "group" if linked else "img"  # links within an image would not be reached
    pixels = f' width="{width}" height="{height}"' if alone else ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"{pixels} '
        f'role="{role}" aria-label={quoteattr(title)} font-family="sans-serif" font-size="12" '
        f'fill="currentColor"{ink}>',
        f'<rect width="{width}" height="{height}" fill="white"/>' if alone else "",
        f'<text x="{_LEFT}" y="17" font-size="14" font-weight="bold">{escape(title)}</text>',
        *_grid(x, y, figure["layout"]),
        *_level_lines(figure["layout"], x, y),
    ]
    for trace in traces:
        parts += _drawn(trace, x, y, linked)
    parts += [_legend_entry(trace, row, left) for trace, row, left in legend]
    return "\n".join(filter(None, [*parts, "</svg>\n"]))


# Axes.


def _axis(traces: Sequence[Data], layout: Data, name: str, ends: tuple[float, float]) -> _Axis:
    own = layout.get(f"{name}axis") or {}
    log = own.get("type") == "log"
    values = [float(v) for trace in traces for v in trace.get(name) or () if v is not None]
    if name == "y":
        values += [edge for trace in traces for edge in _bar_ends(trace)]
    values = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    scaled = [math.log10(v) if log else v for v in values] or [0.0, 1.0]
    low, high = min(scaled), max(scaled)
    room = _ROOM * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - room, high + room
    if own.get("tickvals"):
        names = [str(text).replace("<br>", ", ") for text in own["ticktext"]]
        ticks = list(zip(own["tickvals"], names, strict=True))
    elif log:
        ticks = [(value, si(value)) for value in _decades(low, high)]
    else:
        ticks = [(value, _number(value)) for value in _steps(low, high)]
    return _Axis(log, low, high, *ends, ticks)


def _bar_ends(trace: Data) -> Iterator[float]:
    bars = trace.get("error_y") or {}
    if bars.get("visible", bool(bars)):
        for value, error in zip(trace["y"], bars["array"], strict=True):
            yield from (value - error, value + error)


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... between two logarithms; decades alone where they are far apart, and even
    steps where they are near."""
    digits = (1, 2, 5) if high - low < 3 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [digit * 10.0**power for power in powers for digit in digits]
    found = [value for value in found if low <= math.log10(value) <= high]
    return found if len(found) > 2 else _steps(10.0**low, 10.0**high)


def _steps(low: float, high: float) -> list[float]:
    """About six round values."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10, 20) if digit * power >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return si(value) if abs(value) >= 1e4 else f"{value:.4g}"


def _grid(x: _Axis, y: _Axis, layout: Data) -> Iterator[str]:
    for value, words in x.ticks:
        at = x.at(value)
        yield _line((at, y.start), (at, y.end), _FAINT)
        room = _LETTER * len(words) / 2
        anchor = "end" if at + room > x.end + _RIGHT else "start" if at < room else "middle"
        yield _text(words, at, y.start + 17, anchor)
    for value, words in y.ticks:
        at = y.at(value)
        yield _line((x.start, at), (x.end, at), _FAINT)
        yield _text(words, x.start - 8, at + 4, "end")
    middle, centre = (x.start + x.end) / 2, (y.start + y.end) / 2
    yield _text(_title_of(layout, "x"), middle, y.start + 42, "middle")
    turned = f'transform="rotate(-90 16 {centre:.1f})"'
    yield _text(_title_of(layout, "y"), 16, centre, "middle", turned)


def _title_of(layout: Data, axis: str) -> str:
    return str(((layout.get(f"{axis}axis") or {}).get("title") or {}).get("text", ""))


def _level_lines(layout: Data, x: _Axis, y: _Axis) -> Iterator[str]:
    """The lines across the figure, and the notes at them."""
    for shape in layout.get("shapes") or ():
        if shape.get("y0") == shape.get("y1") and shape.get("y0") is not None:
            at = y.at(shape["y0"])
            if y.end <= at <= y.start:
                yield _line((x.start, at), (x.end, at), _stroke(shape["line"]))
    for note in layout.get("annotations") or ():
        at = y.at(note["y"]) if note.get("y") is not None else -1.0
        if y.end <= at <= y.start:
            yield _text(note["text"], x.end - 4, at - 4, "end", 'opacity="0.75"')


# Traces.


def _drawn(trace: Data, x: _Axis, y: _Axis, linked: Collection[int]) -> list[str]:
    mode = trace.get("mode", "markers")
    parts = [_path(trace, x, y)] if "lines" in mode else []
    if "markers" in mode:
        parts += _points(trace, x, y, linked)
    if not parts:
        return []
    return [f'<g opacity="{trace.get("opacity", 1.0):g}">', *parts, "</g>"]


def _path(trace: Data, x: _Axis, y: _Axis) -> str:
    steps, commands, pen = (trace.get("line") or {}).get("shape") == "hv", [], "M"
    for value, height in zip(trace["x"], trace["y"], strict=True):
        if value is None or height is None:
            pen = "M"
            continue
        across, up = x.at(value), y.at(height)
        if steps and pen == "L":
            commands.append(f"H{across:.1f}V{up:.1f}")
        else:
            commands.append(f"{pen}{across:.1f},{up:.1f}")
        pen = "L"
    return f'<path d="{"".join(commands)}" fill="none" {_stroke(trace.get("line") or {})}/>'


def _points(trace: Data, x: _Axis, y: _Axis, linked: Collection[int]) -> Iterator[str]:
    count = len(trace["x"])
    marker = trace.get("marker") or {}
    looks = (_each(marker.get(name), default, count) for name, default in _MARKER)
    columns = zip(
        trace["x"],
        trace["y"],
        _each(trace.get("text"), "", count),
        trace.get("customdata") or [None] * count,
        (trace.get("error_y") or {}).get("array") or [0.0] * count,
        zip(*looks, strict=True),
        strict=True,
    )
    drawn = [row for row in columns if row[0] is not None and row[1] is not None]
    template = str(trace.get("hovertemplate", ""))
    for value, height, text, custom, error, (colour, symbol, size) in spread(drawn, MOST_POINTS):
        across, up = x.at(value), y.at(height)
        shape = mark(symbol, across, up, size / 2, colour)
        if error and (trace.get("error_y") or {}).get("visible", True):
            ends = (across, y.at(height - error)), (across, y.at(height + error))
            shape = _line(*ends, f'stroke="{escape(colour)}"') + shape
        told = _plain(f"{text}\n{height:.4f} bits/byte" if "%{y" in template else str(text))
        title = f"<title>{escape(told)}</title>" if told else ""
        number = custom[0] if custom else None
        if number in linked:
            yield f'<a href="#trial-{number}"><g>{title}{shape}</g></a>'
        else:
            yield f"<g>{title}{shape}</g>" if title else shape


_MARKER = (("color", GREY), ("symbol", "circle"), ("size", 6))


def _each(value: Any, default: Any, count: int) -> Sequence[Any]:
    """One for each point, where Plotly takes one for all as well."""
    if isinstance(value, (list, tuple)):
        return value
    return [default if value is None else value] * count


# The legend.


def _legend(traces: Sequence[Data], width: int) -> Iterator[tuple[Data, int, float]]:
    """The traces that it names, each with its row and its place in it."""
    seen, row, left = set(), 0, float(_LEFT)
    for trace in traces:
        name = trace.get("name")
        if not name or not trace.get("showlegend", True) or name in seen:
            continue
        seen.add(name)
        room = 34 + _LETTER * len(_plain(name))
        if left + room > width - _RIGHT and left > _LEFT:
            row, left = row + 1, float(_LEFT)
        yield trace, row, left
        left += room


def _legend_entry(trace: Data, row: int, left: float) -> str:
    middle = _TITLE + row * _ROW + _ROW / 2
    marker, mode = trace.get("marker") or {}, trace.get("mode", "markers")
    colour, symbol = (_each(marker.get(name), default, 1) for name, default in _MARKER[:2])
    shape = ""
    if "lines" in mode:
        shape = _line((left, middle), (left + 18, middle), _stroke(trace.get("line") or {}))
    if "markers" in mode and colour and symbol:
        shape += mark(symbol[0], left + 9, middle, 5, colour[0])
    return shape + _text(str(trace["name"]), left + 23, middle + 4, "start")


# Strokes and texts.


def _stroke(line: Data) -> str:
    dash = _DASHES.get(str(line.get("dash")), "")
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    colour = escape(str(line.get("color", GREY)))
    return f'stroke="{colour}" stroke-width="{line.get("width", 1.5):g}"{dashes}'


def _line(start: tuple[float, float], end: tuple[float, float], stroke: str) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f"{stroke}/>"
    )


def _text(words: str, x: float, y: float, anchor: str, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(_plain(words))}'
        "</text>"
    )


def _plain(text: str) -> str:
    """A text of Plotly's without its tags."""
    lines = text.replace("<br>", "\n")
    return html.unescape(_TAG.sub("", lines)).strip()
