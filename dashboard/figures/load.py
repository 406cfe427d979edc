"""How a design's experts were used: a heat map of their load, and the activity by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dashboard.data.detail import SubLayer
from nas.views.style import PALETTE, Data, layout

MOST_COLUMNS = 128  # of experts that are drawn; beyond it a column is the mean of neighbours
# From unused through even (white, or what is behind it) to overloaded; told apart without colour
# vision, and by the numbers of the hover text.
_SCALE = [[0, "#0072B2"], [0.25, "#9CC7E2"], [0.5, "#F2F2F2"], [0.75, "#F0B27A"], [1, "#D55E00"]]


def load_map(noted: Sequence[SubLayer]) -> Data:
    """A row a sub-layer, a column an expert: its share of the reads over an even share.

    1 is an even share, 0 an expert that nothing reads. Experts beyond MOST_COLUMNS share a column.
    """
    rows = [_row(each.load) for each in noted]
    width = max((len(row) for row in rows), default=0)
    most = max((len(each.load) for each in noted), default=0)
    group = -(-most // MOST_COLUMNS) if most > MOST_COLUMNS else 1
    title = "Expert" if group == 1 else f"Experts, {group} to a column"
    found = layout("", title, "load")
    found["yaxis"] |= {"autorange": "reversed", "showgrid": False, "automargin": True}
    found["yaxis"]["title"] = None
    found["xaxis"] |= {"showgrid": False, "rangemode": "tozero"}
    # Where a column stands for several experts it is named by the first.
    heat = {
        "type": "heatmap",
        "z": [[*row, *[None] * (width - len(row))] for row in rows],
        "x": [place * group for place in range(width)],
        "y": [each.name for each in noted],
        "zmin": 0,
        "zmid": 1,
        "zmax": max(2.0, max((max(row, default=0) for row in rows), default=0)),
        "colorscale": _SCALE,
        "xgap": 1 if width <= 64 else 0,
        "ygap": 2,
        "colorbar": {"title": {"text": "load / even share", "side": "right"}, "thickness": 12},
        "hovertemplate": "%{y}, expert %{x}<br>%{z:.2f} of an even share<extra></extra>",
    }
    return {"data": [heat], "layout": found}


def _row(load: Sequence[float]) -> list[float]:
    shares = np.asarray(load, dtype=float) * len(load)
    if len(shares) > MOST_COLUMNS:
        group = -(-len(shares) // MOST_COLUMNS)
        starts = range(0, len(shares), group)
        shares = np.array([shares[at : at + group].mean() for at in starts])
    return [round(float(share), 3) for share in shares]


def activity(shares: Sequence[float], names: Sequence[str], target: float) -> Data:
    """A bar a layer: the share of its experts that a token reads, as measured.

    names: the layers'.
    target: the share that the design was priced with before it was measured.
    """
    found = layout("Share of experts a token reads", "Layer with the design", "activity")
    found["yaxis"] |= {"range": [0, 1.05], "tickformat": ".0%"}
    found["xaxis"] |= {"type": "category"}
    bars = {
        "type": "bar",
        "x": list(names),
        "y": [round(share, 4) for share in shares],
        "marker": {"color": PALETTE[0]},
        "width": 0.6,
        "hovertemplate": "layer %{x}: %{y:.1%} of the experts<extra></extra>",
        "showlegend": False,
    }
    if target < 1:
        line = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": target, "y1": target}
        found["shapes"] = [line | {"line": {"dash": "dot", "color": "#888888"}}]
        note = {"xref": "x domain", "x": 1, "y": target, "xanchor": "right", "yanchor": "bottom"}
        text = f"counted with {target:.0%}"
        found["annotations"] = [note | {"text": text, "showarrow": False}]
    return {"data": [bars], "layout": found}
