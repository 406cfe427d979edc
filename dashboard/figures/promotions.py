"""Where designs stood at a rung, and where they came in at the top."""

from __future__ import annotations

import pandas as pd

from nas.views.style import GREY, Data, colour, layout, shown, spread, symbol

MOST_POINTS = 1500  # of a rung that are drawn; the front is, always


def promotions_figure(pairs: pd.DataFrame, rung: int, designs: pd.Series, revision: str) -> Data:
    """Places by bits per byte, 1 is the best: at the top (y) against at the rung (x). On the line
    nothing changed; below it a design came out better than it looked.

    pairs: of `dashboard.data.promotions.Promotions`.
    designs: labels by trial.
    A point's `customdata` is [trial number].
    """
    mine = pairs[pairs["rung"] == rung]
    found = layout("Place at the top", f"Place at rung {rung} (1 is the best)", revision)
    found["hovermode"] = "closest"
    end = len(mine) + 0.5
    found["xaxis"] |= {"range": [0.5, end]}
    found["yaxis"] |= {"range": [0.5, end]}
    line = {"color": GREY, "dash": "dot", "width": 1}
    found["shapes"] = [{"type": "line", "x0": 1, "y0": 1, "x1": end, "y1": end, "line": line}]
    best = mine["frontier"].astype(bool)
    kept = [*mine.index[best], *spread(mine.index[~best].tolist(), MOST_POINTS)]
    drawn = mine.loc[sorted(kept)]
    traces = []
    for method, own in drawn.groupby("method"):
        front = own["frontier"].astype(bool)
        traces.append(
            {
                "type": "scattergl" if len(drawn) > 1000 else "scatter",
                "mode": "markers",
                "name": str(method),
                "x": own["at_rung"].tolist(),
                "y": own["at_top"].tolist(),
                "customdata": [[int(number)] for number in own["trial"]],
                "text": [
                    f"<b>#{number} {shown(str(design))}</b>"
                    f"<br>place {there:.0f} at the rung, {late:.0f} at the top"
                    + ("<br>on the frontier" if top else "")
                    for number, design, there, late, top in zip(
                        own["trial"],
                        designs.loc[own["trial"]],
                        own["at_rung"],
                        own["at_top"],
                        front,
                        strict=True,
                    )
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": colour(str(method)),
                    "symbol": symbol(str(method)),
                    "size": [13 if each else 7 for each in front],
                    "opacity": [1.0 if each else 0.55 for each in front],
                },
            }
        )
    return {"data": traces, "layout": found}
