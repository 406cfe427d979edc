"""The marks of points, as Plotly names their symbols."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

_TURN = 2 * math.pi
Outline = list[tuple[float, float]]  # corners, for a circle of radius 1


def mark(symbol: str, x: float, y: float, radius: float, colour: str) -> str:
    """One mark; `-open` at the end of a symbol's name leaves it hollow.

    x, y: its middle in pixels.
    radius: of the circle of the same size.
    """
    name = symbol.removesuffix("-open")
    hollow = symbol.endswith("-open")
    ink = escape(colour)
    style = f'fill="none" stroke="{ink}" stroke-width="1.6"' if hollow else f'fill="{ink}"'
    if name == "circle" or name not in _OUTLINES:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {style}/>'
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in _OUTLINES[name])
    return f'<polygon points="{points}" {style}/>'


def _ring(count: int, start: float, radii: tuple[float, ...] = (1.15,)) -> Outline:
    """Corners around the middle, from a turn `start` on; `radii` come in turns."""
    return [
        (
            radii[i % len(radii)] * math.cos(_TURN * (start + i / count)),
            radii[i % len(radii)] * math.sin(_TURN * (start + i / count)),
        )
        for i in range(count)
    ]


def _cross(turn: float) -> Outline:
    """A plus with thick arms, turned."""
    arm, thick = 1.1, 0.38
    corners = [
        *((-thick, -arm), (thick, -arm), (thick, -thick), (arm, -thick), (arm, thick)),
        *((thick, thick), (thick, arm), (-thick, arm), (-thick, thick), (-arm, thick)),
        *((-arm, -thick), (-thick, -thick)),
    ]
    c, s = math.cos(_TURN * turn), math.sin(_TURN * turn)
    return [(c * x - s * y, s * x + c * y) for x, y in corners]


_OUTLINES = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "diamond": _ring(4, 0.0, (1.25,)),
    "cross": _cross(0.0),
    "x": _cross(0.125),
    "triangle-up": _ring(3, -0.25, (1.25,)),
    "star": _ring(10, -0.25, (1.35, 0.58)),
    "hexagon": _ring(6, 0.0),
}
