"""A forest plot: what designs differ by from the first, each with its 95% interval."""

from __future__ import annotations

from collections.abc import Sequence

from nas.views.comparison import Comparison
from nas.views.style import GREY, PALETTE, Data, layout, shown


def forest(comparisons: Sequence[Comparison]) -> Data:
    """A row a comparison; each is of another design less the first one's (`b`).

    Left of 0 a design is better than the first. A filled mark is told apart from 0, a hollow one
    is not.
    """
    found = layout("", "Bits per byte less the first design's (left is better)", "forest")
    found["yaxis"] |= {"autorange": "reversed", "automargin": True, "showgrid": False}
    found["yaxis"] |= {"title": None, "type": "category"}
    found["xaxis"] |= {"zeroline": True, "zerolinecolor": GREY, "zerolinewidth": 1.5}
    names = [f"#{each.a.trial} {shown(each.a.design)}" for each in comparisons]
    high = [each.interval[1] - each.difference for each in comparisons]
    low = [each.difference - each.interval[0] for each in comparisons]
    marks = {
        "type": "scatter",
        "x": [each.difference for each in comparisons],
        "y": names,
        "mode": "markers",
        "customdata": [[each.a.trial] for each in comparisons],
        "text": [f"{each.interval[0]:+.4f} to {each.interval[1]:+.4f}" for each in comparisons],
        "hovertemplate": "%{y}<br>%{x:+.4f}, 95% interval %{text}<extra></extra>",
        "marker": {
            "size": 11,
            "color": PALETTE[0],
            "symbol": ["square" if each.differ else "square-open" for each in comparisons],
            "line": {"width": 2},
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": high,
            "arrayminus": low,
            "color": PALETTE[0],
            "thickness": 2,
            "width": 6,
        },
        "showlegend": False,
    }
    return {"data": [marks], "layout": found}
