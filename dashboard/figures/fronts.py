"""A front for each method."""

from __future__ import annotations

import numpy as np

from dashboard.data.reading import Reading
from nas.search.objectives import objective
from nas.search.pareto import non_dominated
from nas.views.style import Data, colour, layout, shown, si, symbol
from search_space.contract import Status


def fronts_figure(reading: Reading, revision: str) -> Data:
    """Quality (y, the study's first objective) against cost (x, log, its second): each method's own
    front as steps, of the feasible designs at the top rung. Thick is what is on the study's.

    A point's `customdata` is [trial number].
    """
    study = reading.study
    y = objective(study.objectives[0])
    other = "bits_per_byte" if y.name == "active_flops" else "active_flops"
    x = objective(study.objectives[1] if len(study.objectives) > 1 else other)
    found = layout(y.title, f"{x.title} (log scale)", revision)
    found["xaxis"] |= {"type": "log", "tickformat": "~s"}
    found["hovermode"] = "closest"
    trials = reading.trials
    kept = trials[(trials["status"] == Status.FINISHED.value) & (trials["infeasible"] == "")]
    kept = kept[np.isfinite(kept[[x.name, y.name]].to_numpy(dtype=float)).all(axis=1)]
    kept = kept[kept[x.name] > 0]
    traces = []
    for method, mine in kept.groupby("method"):
        front = mine[non_dominated(mine[[x.name, y.name]].to_numpy(dtype=float))]
        front = front.sort_values([x.name, y.name])
        texts = [
            f"<b>#{number} {shown(row['design'])}</b><br>{y.title}: {_number(y.name, row[y.name])}"
            f"<br>{x.title}: {_number(x.name, row[x.name])}"
            + ("<br>on the study's frontier" if row["frontier"] else "")
            for number, row in front.iterrows()
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{method} ({len(mine):,})",
                "x": front[x.name].tolist(),
                "y": front[y.name].tolist(),
                "customdata": [[int(number)] for number in front.index],
                "text": texts,
                "hovertemplate": "%{text}<extra></extra>",
                "line": {"color": colour(str(method)), "width": 1.5, "shape": "hv"},
                "marker": {
                    "color": colour(str(method)),
                    "symbol": symbol(str(method)),
                    "size": np.where(front["frontier"], 13, 7).tolist(),
                },
            }
        )
    return {"data": traces, "layout": found}


def _number(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "bits_per_byte" else si(value)
