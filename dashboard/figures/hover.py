"""What the mouse over a point of the scatter says."""

from __future__ import annotations

import pandas as pd

from dashboard.figures.looks import Style
from dashboard.figures.points import Points
from nas.search.objectives import Objective
from nas.store import StudyRecord
from nas.views.certainty import Chance, neighbour_words
from nas.views.style import Data, rung_words, shown, si


def brief(rows: pd.DataFrame, found: Points, style: Style, more: str = "") -> Data:
    """What the mouse over a weak point says: the browser puts it together, of little text."""
    y, x = found.axes[0], found.axes[1]
    lines = [f"%{{y:{_format(y)}}} {y.column}", f"%{{x:{_format(x)}}} {x.column}"]
    texts = [shown(design) for design in rows["design"]]
    extra = _colour_words(rows, found, style)
    if extra:
        texts = [f"{text}<br>{words}" for text, words in zip(texts, extra, strict=True)]
    template = f"<b>#%{{customdata[0]}}</b> %{{text}}<br>{'<br>'.join(lines)}{more}<extra></extra>"
    return {"text": texts, "hovertemplate": template}


def _format(axis: Objective) -> str:
    return ".4f" if axis.name == "bits_per_byte" else ".3s"


def _colour_words(rows: pd.DataFrame, found: Points, style: Style) -> list[str]:
    """What the colour says of each point; [] where the axes or the design's name say it."""
    if style.colour.name in ("method", *(each.name for each in found.axes[:2])):
        return []
    values = style.colour.values.reindex(rows.index)
    words = ["-" if v != v else v if isinstance(v, str) else si(v) for v in values]
    name = shown(style.colour.title or style.colour.name)
    return [f"{name}: {shown(word)}" for word in words]


def full(study: StudyRecord, rows: pd.DataFrame, found: Points, style: Style) -> list[str]:
    """What the mouse over a point on the front says: all that is known of it."""
    axes = [each for each in found.axes if each.name != "bits_per_byte"]
    lines = [f"<b>#{number} {shown(design)}</b>" for number, design in rows["design"].items()]
    bits = [_bits(b, n) for b, n in zip(rows["bits_per_byte"], rows["noise"], strict=True)]
    lines = [line + more for line, more in zip(lines, bits, strict=True)]
    for axis in axes:
        lines = [
            f"{a}<br>{axis.column}: {si(v)}" for a, v in zip(lines, rows[axis.name], strict=True)
        ]
    extra = _colour_words(rows, found, style) or [""] * len(lines)
    lines = [f"{a}<br>{b}" if b else a for a, b in zip(lines, extra, strict=True)]
    seeds = zip(rows["rung"], rows["seeds"], strict=True)
    seen = [rung_words(study.rungs, None if pd.isna(r) else int(r), int(s)) for r, s in seeds]
    sure = [_sure_words(style.chances.get(int(number))) for number in rows.index]
    return [f"{a}<br>{b}{c}" for a, b, c in zip(lines, seen, sure, strict=True)]


def _bits(bits: float | None, noise: float | None) -> str:
    if bits is None or bits != bits:
        return ""
    error = rounded(noise)
    return f"<br>{bits:.4f}{f' ± {error:.4f}' if error else ''} bits/byte"


def _sure_words(chance: Chance | None) -> str:
    if chance is None:
        return ""
    words = f"<br>on the frontier with probability {chance.probability:.2f}"
    for name, beside in (("cheaper", chance.cheaper), ("dearer", chance.dearer)):
        if beside is not None:
            gap = {"trial": beside[0], "difference": beside[1].value, "error": beside[1].error}
            words += f"<br>less the next {name}: {neighbour_words(gap)}"
    return words


def rounded(noise: float | None) -> float:
    """Four digits of an error; 0 where nothing is known of it."""
    return 0.0 if noise is None or noise != noise else float(f"{noise:.4g}")
