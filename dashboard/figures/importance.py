"""What each knob explains of each objective."""

from __future__ import annotations

import pandas as pd

from dashboard.data.importance import LEVEL
from nas.search.objectives import OBJECTIVES
from nas.views.style import GREY, PALETTE, Data, layout, shown

ROW = 26  # pixels a knob
_GAP = 0.03  # between two panels, of the width
_ALONE, _BESIDE = PALETTE[0], PALETTE[1]
_LIFT = 0.17  # of a row, by which the two marks of a knob are parted


def knob_rows(table: pd.DataFrame) -> list[str]:
    """The knobs of `dashboard.data.importance.importance` that something is said of, in the order
    in which they are drawn: by the most that each explains of any objective."""
    told = table[table["alone"].notna()]
    most = told.groupby("knob")["alone"].max().sort_values(ascending=False, kind="stable")
    return [str(name) for name in most.index]


def importance_height(rows: int) -> int:
    """Pixels for so many knobs."""
    return 130 + ROW * max(rows, 3)


def importance_figure(table: pd.DataFrame, revision: str) -> Data:
    """A panel an objective, a row a knob: the share alone and beside the others, each with its 95%
    interval. What is not told from chance is grey and hollow."""
    knobs = knob_rows(table)
    objectives = list(dict.fromkeys(table["objective"]))
    found = layout("", "", revision)
    del found["xaxis"]
    counts = table.groupby("knob")["designs"].max()
    found["yaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(knobs))),
        "ticktext": [f"{shown(name)} ({counts[name]:,})" for name in knobs],
        "range": [len(knobs) - 0.4, -0.6],
        "title": {"text": ""},
    }
    found |= {"hovermode": "closest", "annotations": []}
    found["margin"] |= {"l": 10, "t": 40}
    found["yaxis"]["automargin"] = True
    width = (1 - _GAP * (len(objectives) - 1)) / max(len(objectives), 1)
    traces: list[Data] = []
    for i, objective in enumerate(objectives):
        axis = "x" if i == 0 else f"x{i + 1}"
        left = i * (width + _GAP)
        title = OBJECTIVES[objective].title if objective in OBJECTIVES else objective
        found["xaxis" if i == 0 else f"xaxis{i + 1}"] = {
            "domain": [left, min(left + width, 1)],
            "range": [-0.02, 1.02],
            "tickformat": ".0%",
            "gridcolor": found["yaxis"]["gridcolor"],
            "zeroline": False,
            "anchor": "y",
            "title": {"text": f"Share explained: {shown(title)}"},
        }
        mine = table[(table["objective"] == objective) & table["alone"].notna()].set_index("knob")
        mine = mine.loc[[name for name in knobs if name in mine.index]]
        for name in ("alone", "beside"):
            drawn = mine[mine[name].notna()]
            if len(drawn):
                places = [knobs.index(knob) for knob in drawn.index]
                traces += _marks(drawn, places, axis, name, i == 0)
    return {"data": traces, "layout": found}


def _marks(mine: pd.DataFrame, places: list[int], axis: str, name: str, legend: bool) -> list[Data]:
    alone = name == "alone"
    lift = -_LIFT if alone else _LIFT
    colour, symbol = (_ALONE, "circle") if alone else (_BESIDE, "diamond")
    told = mine["told"].to_numpy() if alone else (mine["beside_low"] > 0).to_numpy()
    share, low, high = mine[name], mine[f"{name}_low"], mine[f"{name}_high"]
    words = "alone" if alone else "beside the other knobs"
    texts = [
        f"<b>{shown(str(knob))}</b> {words}: {row[name]:.1%}"
        f"<br>95% interval {row[f'{name}_low']:.1%} to {row[f'{name}_high']:.1%}"
        f"<br>{row['designs']:,} designs have it<br>{_verdict(row, alone, bool(sure))}"
        for (knob, row), sure in zip(mine.iterrows(), told, strict=True)
    ]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "xaxis": axis,
            "x": share.tolist(),
            "y": [place + lift for place in places],
            "error_x": {
                "type": "data",
                "array": (high - share).tolist(),
                "arrayminus": (share - low).tolist(),
                "color": GREY,
                "thickness": 1.2,
                "width": 3,
            },
            "marker": {
                "size": 9,
                "color": [colour if sure else GREY for sure in told],
                "symbol": [symbol if sure else f"{symbol}-open" for sure in told],
            },
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "name": words,
            "legendgroup": name,
            "showlegend": False,
        },
        {
            "type": "scatter",
            "mode": "markers",
            "xaxis": axis,
            "x": [None],
            "y": [None],
            "marker": {"size": 9, "color": colour, "symbol": symbol},
            "name": words,
            "legendgroup": name,
            "showlegend": legend,
        },
    ]


def _verdict(row: pd.Series, alone: bool, sure: bool) -> str:
    if not alone:
        return "the interval leaves out 0" if sure else "not told from 0"
    if sure:
        return f"told from chance (p {row['chance']:.2g}, all knobs counted)"
    return f"not told from chance (p {row['chance']:.2g} is above {LEVEL:g})"
