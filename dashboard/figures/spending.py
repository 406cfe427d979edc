"""Where the training FLOPs went, as bars."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dashboard.data.spending import FAILED, MEASURED, OPEN, OUTCOMES
from nas.views.style import GREY, PALETTE, Data, layout, shown, si

_LOOKS = {MEASURED: (PALETTE[0], ""), FAILED: (PALETTE[1], "x"), OPEN: (GREY, "/")}


def spending_figure(table: pd.DataFrame, revision: str) -> Data:
    """Bars of training FLOPs, a group each, in parts by what they came to.

    table: one of `dashboard.data.spending.spending`.
    """
    found = layout("", "Training FLOPs", revision)
    found["xaxis"] |= {"tickformat": "~s", "rangemode": "tozero"}
    found["yaxis"] |= {"automargin": True, "autorange": "reversed", "type": "category"}
    found["margin"] |= {"l": 10, "t": 40}
    found |= {"barmode": "stack", "hovermode": "closest", "bargap": 0.3}
    total = float(table.to_numpy().sum()) or 1.0
    names = [shown(str(name)) for name in table.index]
    traces = []
    for outcome in OUTCOMES:
        values = table[outcome]
        if not (values > 0).any():
            continue
        colour, pattern = _LOOKS[outcome]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": outcome,
                "x": values.tolist(),
                "y": names,
                "marker": {"color": colour, "pattern": {"shape": pattern, "fgopacity": 0.5}},
                "text": [
                    f"{name}, {outcome}: {si(value)} FLOPs, {value / total:.1%} of all"
                    for name, value in zip(names, values, strict=True)
                ],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "showlegend": True,
            }
        )
    return {"data": traces, "layout": found}


def spending_height(tables: Mapping[str, pd.DataFrame]) -> int:
    """Pixels for the longest of the tables."""
    return 130 + 28 * max((len(table) for table in tables.values()), default=1)
