"""A design drawn as a picture of its layer, and the same in words. No Streamlit, no Plotly."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape

from nas.views.style import colour
from search_space.backbone import Backbone
from search_space.placement import placed, reference
from search_space.spec import FFNSpec

WIDTH, _LEFT, _RIGHT = 540, 122, 536
_MOST_EXPERTS = 12  # that are drawn one by one
_MOST_LAYERS = 24
_SOFT = "rgba(128,128,128,0.16)"
_TEXT = 14
_SMALL = 13


@dataclass(frozen=True)
class Picture:
    """An SVG and what it shows, in words."""

    svg: str
    words: str


def layer_picture(spec: FFNSpec, backbone: Backbone) -> Picture:
    """One layer's FFN from its input down to its output, beside the model's layers.

    Colours follow the page: lines and texts take `currentColor`, the chosen experts the method's.
    """
    words, title = description(spec, backbone), escape(spec.label)
    drawing = _Drawing(colour(spec.method))
    _model(drawing, spec, backbone)
    height = _sub_layer(drawing, spec, backbone)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="100%" style="max-width:{WIDTH}px" role="img" aria-label="{escape(words)}" '
        f'font-size="{_TEXT}" fill="currentColor" font-family="inherit"><title>{title}</title>'
    )
    return Picture(head + "".join(drawing.parts) + "</svg>", words)


def description(spec: FFNSpec, backbone: Backbone) -> str:
    """The picture in words."""
    layers = placed(spec.placement, backbone.n_layers)
    parts = [f"{sum(layers)} of {len(layers)} layers of the model have this FFN."]
    if spec.depth > 1:
        parts.append(f"It is {spec.depth} sub-layers in sequence, each with its own norm.")
    parts.append(f"How a token picks: {how(spec)[:1].lower()}{how(spec)[1:]}")
    parts.append(f"{_experts_words(spec)}; {_reads_words(spec)}.")
    if spec.shared_width:
        width = spec.shared_width // spec.depth
        parts.append(f"Beside them a shared FFN of {width} hidden units sees every token.")
    if spec.output_gate:
        parts.append("A gate weighs each expert's output.")
    parts.append("What the experts give is summed and added to the input.")
    return " ".join(parts)


def how(spec: FFNSpec) -> str:
    """How a token picks its experts: what the method says of itself."""
    said = (type(spec.selection).__doc__ or "").strip().splitlines()
    return said[0] if said else f"{spec.method}."


def _experts_words(spec: FFNSpec) -> str:
    if spec.selection.value_rows:
        return f"{spec.n_experts:,} value rows"
    count = "1 expert" if spec.n_experts == 1 else f"{spec.n_experts:,} experts"
    units = "1 hidden unit" if spec.expert_width == 1 else f"{spec.expert_width:,} hidden units"
    each = "" if spec.n_experts == 1 else " each"
    return f"{count} of {units}{each}, {spec.activation}" + (", gated" if spec.gated else "")


def _reads_words(spec: FFNSpec) -> str:
    reads = spec.granularity
    if reads >= spec.n_experts:
        return "a token reads them all" if spec.n_experts > 1 else "every token reads it"
    exact = hasattr(spec.selection, "k")
    return f"a token reads {reads:,.3g}" if exact else f"a token reads about {reads:,.3g}"


class _Drawing:
    """SVG elements in their order."""

    def __init__(self, accent: str) -> None:
        self.accent = accent
        self.ink = _ink(accent)
        self.parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, fill: str = _SOFT, dash: bool = False
    ) -> None:
        """A rectangle with round corners."""
        more = ' stroke-dasharray="4 3"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" '
            f'fill="{fill}" stroke="currentColor" stroke-opacity="0.55"{more}/>'
        )

    def text(
        self, x: float, y: float, text: str, anchor: str = "middle", size: int = _TEXT,
        bold: bool = False, fill: str = "",
    ) -> None:  # fmt: skip
        """A line of text; x is its middle, its start or its end."""
        more = ' font-weight="600"' if bold else ""
        more += f' fill="{fill}"' if fill else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"{more}>'
            f"{escape(text)}</text>"
        )

    def arrow(self, points: str) -> None:
        """A line through the points, with a head at its end."""
        *_, last = points.split()
        x, y = (float(each) for each in last.split(","))
        self.parts.append(
            f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.4"/>'
            f'<path d="M{x - 4:g},{y - 6:g} L{x + 4:g},{y - 6:g} L{x:g},{y:g} Z"/>'
        )

    def line(self, points: str, dash: bool = False) -> None:
        """A line through the points."""
        more = ' stroke-dasharray="3 3"' if dash else ""
        self.parts.append(
            f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.4"'
            f' stroke-opacity="0.7"{more}/>'
        )


def _ink(ground: str) -> str:
    """Black or white, whichever is read better on a colour like #0072B2."""
    red, green, blue = (int(ground[at : at + 2], 16) / 255 for at in (1, 3, 5))
    light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#000000" if light > 0.18 else "#ffffff"


def _model(drawing: _Drawing, spec: FFNSpec, backbone: Backbone) -> None:
    """The model's layers, the first one lowest."""
    layers = placed(spec.placement, backbone.n_layers)
    drawing.text(55, 20, "The model", bold=True)
    shown = layers[:_MOST_LAYERS]
    room = 300 / len(shown)
    tall = min(30.0, room - 3)
    for place, own in enumerate(shown):
        y = 36 + (len(shown) - 1 - place) * (tall + 3)
        drawing.box(8, y, 94, tall, drawing.accent if own else _SOFT)
        if tall >= 14:
            words = f"layer {place}" if own else f"{place}: reference"
            ink = drawing.ink if own else ""
            drawing.text(55, y + tall / 2 + 4, words, size=_SMALL, fill=ink)
    below = 36 + len(shown) * (tall + 3) + 14
    if len(layers) > len(shown):
        drawing.text(55, below, f"… {len(layers)} layers", size=_SMALL)
        below += 16
    drawing.text(55, below, f"{sum(layers)} of {len(layers)} have it", size=_SMALL)


def _sub_layer(drawing: _Drawing, spec: FFNSpec, backbone: Backbone) -> float:
    """The FFN of a layer; returns how tall the picture is."""
    middle = (_LEFT + _RIGHT) / 2
    drawing.text(middle, 20, f"{spec.label}", bold=True)
    if spec.depth > 1:  # more sub-layers behind the one that is drawn
        for step in range(min(spec.depth - 1, 3), 0, -1):
            drawing.box(_LEFT + 6 * step, 52 - 3 * step, _RIGHT - _LEFT - 12 * step, 12, "none")
    drawing.text(middle, 42, f"a token's state, {backbone.d_model} wide", size=_SMALL)
    top = 64
    drawing.arrow(f"{middle:g},48 {middle:g},{top + 14}")
    y: float = top + 14
    drawing.box(middle - 55, y, 110, 24)
    drawing.text(middle, y + 16, "RMSNorm")
    drawing.arrow(f"{middle:g},{y + 24:g} {middle:g},{y + 44:g}")
    y = _selection(drawing, spec, middle, y + 44)
    y = _experts(drawing, spec, middle, y + 22)
    drawing.arrow(f"{middle:g},{y:g} {middle:g},{y + 22:g}")
    summed = (
        "sum"
        if spec.method == reference(backbone).method and not spec.output_gate
        else "weighted sum"
    )
    summed = "sum of what each gate lets through" if spec.output_gate else summed
    drawing.box(middle - 140, y + 22, 280, 24)
    drawing.text(middle, y + 38, summed)
    y += 46
    plus = y + 26
    drawing.line(f"{middle:g},{y:g} {middle:g},{plus - 9:g}")
    drawing.parts.append(
        f'<circle cx="{middle:g}" cy="{plus:g}" r="9" fill="none" stroke="currentColor"/>'
    )
    drawing.text(middle, plus + 5, "+", bold=True)
    # The residual: from the input round the right side.
    edge = _RIGHT - 10
    drawing.line(f"{middle:g},58 {edge},58 {edge},{plus:g} {middle + 9:g},{plus:g}", dash=True)
    drawing.text(edge - 6, plus - 6, "residual", anchor="end", size=_SMALL)
    drawing.arrow(f"{middle:g},{plus + 9:g} {middle:g},{plus + 30:g}")
    drawing.box(_LEFT, top - 12, _RIGHT - _LEFT, plus + 16 - top, "none")
    y = plus + 48
    if spec.depth > 1:
        drawing.text(middle, y, f"{spec.depth} such sub-layers in sequence", size=_SMALL, bold=True)
        y += 18
    return max(y, 390)


def _selection(drawing: _Drawing, spec: FFNSpec, middle: float, y: float) -> float:
    """How a token picks; returns where it ends."""
    lines = textwrap.wrap(how(spec), 44)
    knobs = {n: v for n, v in spec.selection.to_dict().items() if n not in ("method", "seed")}
    said = ", ".join(f"{name} {_word(value)}" for name, value in knobs.items())
    small = textwrap.wrap(said, 52)
    height = 14 + 17 * len(lines) + 15 * len(small)
    drawing.box(_LEFT + 20, y, _RIGHT - _LEFT - 60, height)
    at = y + 19
    for line in lines:
        drawing.text(middle - 10, at, line, bold=True)
        at += 17
    for line in small:
        drawing.text(middle - 10, at, line, size=_SMALL)
        at += 15
    return y + height


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _experts(drawing: _Drawing, spec: FFNSpec, middle: float, y: float) -> float:
    """The experts, the picked ones filled, and the shared FFN; returns where they end."""
    shared = 92 if spec.shared_width else 0
    left, right = _LEFT + 20, _RIGHT - 40 - (shared + 12 if shared else 0)
    count = min(spec.n_experts, _MOST_EXPERTS)
    more = spec.n_experts > count
    room = (right - left - (22 if more else 0)) / count
    wide = min(60.0, room - 4)
    start = (left + right) / 2 - (count * (wide + 4) + (22 if more else 0)) / 2
    share = min(1.0, spec.granularity / spec.n_experts)
    picked = max(1, round(share * count))
    chosen = {int((place + 0.5) * count / picked) for place in range(picked)}
    drawing.line(f"{middle:g},{y - 22:g} {middle:g},{y:g}")
    for place in range(count):
        x = start + place * (wide + 4)
        drawing.box(x, y, wide, 40, drawing.accent if place in chosen else _SOFT)
    if more:
        drawing.text(start + count * (wide + 4) + 8, y + 24, "…", bold=True)
    if shared:
        x = _RIGHT - 40 - shared
        drawing.box(x, y, shared, 40, drawing.accent)
        drawing.text(x + shared / 2, y + 18, "shared", size=_SMALL, fill=drawing.ink)
        width = spec.shared_width // spec.depth
        drawing.text(x + shared / 2, y + 33, f"{width} units", size=_SMALL, fill=drawing.ink)
    drawing.text(middle - 10, y + 58, _experts_words(spec), size=_SMALL)
    drawing.text(middle - 10, y + 74, f"{_reads_words(spec)} (filled)", size=_SMALL)
    return y + 84
