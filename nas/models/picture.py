"""The frontier of a study as an SVG, for an export's card: what draws figures needs a browser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from nas.models.found import Point

Line = Callable[[float], float]  # from a value to a place
WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_FRONT, _OTHER, _INK = "#0072b2", "#999999", "#333333"


def frontier_svg(points: Sequence[Point], chosen: int, title: str) -> str:
    """Bits per byte over active FLOPs a token (a log axis); the chosen trial has a ring.

    points: by active FLOPs, one at least.
    """
    xs = [math.log10(point.active_flops) for point in points]
    ys = [point.bits_per_byte for point in points]
    x_of, y_of = _scale(xs, _LEFT, WIDTH - _RIGHT), _scale(ys, HEIGHT - _BOTTOM, _TOP)
    front = [
        (x_of(x), y_of(p.bits_per_byte)) for x, p in zip(xs, points, strict=True) if p.on_front
    ]
    dots = []
    for x, point in zip(xs, points, strict=True):
        cx, cy = x_of(x), y_of(point.bits_per_byte)
        colour = _FRONT if point.on_front else _OTHER
        label = f"trial {point.number}: {point.bits_per_byte:.4f} at {point.active_flops:.3g}"
        dots.append(
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{colour}">'
            f"<title>{label}</title></circle>"
        )
        if point.number == chosen:
            dots.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="9" fill="none" stroke="{_INK}" '
                'stroke-width="2"/>'
            )
    # A step: between two of its designs the frontier is as good as the cheaper one.
    steps = front[:1]
    for (_, before), (x, y) in itertools.pairwise(front):
        steps += [(x, before), (x, y)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12" fill="{_INK}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
            *_ticks(x_of, [10**x for x in (min(xs), max(xs))], y_of, (min(ys), max(ys))),
            f'<polyline points="{line}" fill="none" stroke="{_FRONT}"/>',
            *dots,
            "</svg>\n",
        ]
    )


def _scale(values: Sequence[float], start: float, end: float) -> Line:
    """From the values' range, a little widened, to a line of the picture."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05
    low, high = low - room, high + room
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(x_of: Line, active: Sequence[float], y_of: Line, bits: Sequence[float]) -> list[str]:
    """The ends of both axes in numbers, and their names."""
    base, out = HEIGHT - _BOTTOM, []
    for value in dict.fromkeys(active):
        at = x_of(math.log10(value))
        out.append(f'<text x="{at:.1f}" y="{base + 16}" text-anchor="middle">{value:.3g}</text>')
    for value in dict.fromkeys(bits):
        at = y_of(value)
        out.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:.3f}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    out.append(
        f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">'
        "active FLOPs a token (log scale)</text>"
    )
    y = (base + _TOP) / 2
    out.append(
        f'<text x="16" y="{y}" text-anchor="middle" transform="rotate(-90 16 {y})">'
        "validation bits per byte</text>"
    )
    frame = f'<path d="M{_LEFT},{_TOP} V{base} H{WIDTH - _RIGHT}" fill="none" stroke="{_OTHER}"/>'
    return [frame, *out]
