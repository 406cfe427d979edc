"""How a study's best and its frontier came about, against what it had spent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dashboard.data.history import History
from nas.views.style import GREY, PALETTE, Data, layout, spread

MOST_STEPS = 1000  # of a line that are drawn: a page is not much wider
_BEST, _VOLUME = PALETTE[0], PALETTE[1]


def history_figure(history: History, revision: str, at: int | None = None) -> Data:
    """Two panels over the study's cumulated training FLOPs: its best bits per byte, and the
    hypervolume of its front. Steps, because between two measures nothing changes.

    revision: the same keeps the reader's zoom.
    at: how many evaluations had ended at the moment that is replayed; a line is drawn there.
    Without a measure at the top rung the figure has no traces.
    """
    frame = history.frame
    found = layout("Best bits per byte", "Training FLOPs that the study had spent", revision)
    found["xaxis"] |= {"tickformat": "~s", "anchor": "y2", "rangemode": "tozero"}
    found["yaxis"] |= {"domain": [0.54, 1.0]}
    found["yaxis2"] = found["yaxis"] | {
        "domain": [0.0, 0.46],
        "title": {"text": "Hypervolume (share)"},
        "rangemode": "tozero",
    }
    found |= {"showlegend": False, "hovermode": "closest", "shapes": []}
    if frame.empty:
        return {"data": [], "layout": found}

    flops = frame["flops"].to_numpy()
    texts = _texts(history)
    traces = [
        _steps(flops, frame["best"].to_numpy(), texts, _BEST, "y")
        | {"hovertemplate": "%{y:.4f} bits per byte<br>%{text}<extra></extra>"},
        _steps(flops, frame["hypervolume"].to_numpy(), texts, _VOLUME, "y2")
        | {"hovertemplate": "%{y:.4f} of the box<br>%{text}<extra></extra>"},
    ]
    if at is not None:
        past = int(np.searchsorted(frame["ended"].to_numpy(), at, side="right"))
        found["shapes"] = [_moment(float(flops[past - 1]) if past else 0.0)]
    return {"data": traces, "layout": found}


def _texts(history: History) -> npt.NDArray[np.object_]:
    frame = history.frame
    counts = frame["front"].map(lambda n: f"{n} design{'' if n == 1 else 's'} on the front")
    texts: npt.NDArray[np.object_] = (
        ("after trial #" + frame["trial"].astype(str))
        .str.cat(counts, sep="<br>")
        .to_numpy(dtype=object)
    )
    return texts


def _steps(
    flops: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    texts: npt.NDArray[np.object_],
    colour: str,
    axis: str,
) -> Data:
    """A line through the rows at which the value changes, and the last."""
    known = ~np.isnan(values)
    changes = known & (values != np.concatenate([[np.nan], values[:-1]]))
    changes[-1] = known[-1]
    rows = np.array(spread(np.flatnonzero(changes).tolist(), MOST_STEPS), dtype=int)
    return {
        "type": "scatter",
        "x": flops[rows].tolist(),
        "y": values[rows].tolist(),
        "text": texts[rows].tolist(),
        "mode": "lines+markers" if len(rows) < 60 else "lines",
        "line": {"color": colour, "width": 2, "shape": "hv"},
        "marker": {"size": 5},
        "yaxis": axis,
    }


def _moment(flops: float) -> Data:
    line = {"color": GREY, "dash": "dot", "width": 2}
    return {"type": "line", "x0": flops, "x1": flops, "y0": 0, "y1": 1, "yref": "paper"} | {
        "line": line
    }
