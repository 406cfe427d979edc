"""The curves of the runs that are under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dashboard.data.curves import Curve
from dashboard.data.reading import Reading
from nas.views.style import Data, colour, layout, shown
from search_space.contract import Recipe

MOST = 12  # runs that are drawn: of more, the newest
POINTS = 300  # of one line
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def live_data(reading: Reading, curves: Mapping[int, Curve]) -> Data:
    """Training loss (nats a token) against a run's training FLOPs, a line a run under way.

    A line is the trunk through the run's rungs and what its running rung trained so far. A point's
    `customdata` is its trial's number.
    """
    running = reading.running.iloc[-MOST:]
    traces: list[Data] = []
    seen: dict[str, int] = {}
    known = reading.some(curves)[["trial", "seed", "rung", "until_flops", "trunk_flops"]]
    for id, row in running.iterrows():
        x, y = _line(_of_run(known, row), int(id), curves, _decay(reading))  # type: ignore[call-overload]
        own = [reading.trials.at[row["trial"], name] for name in ("design", "method")]
        design, method = map(str, own)
        turn = seen[method] = seen.get(method, -1) + 1
        rung = f", rung {row['rung']}" if reading.study.rungs > 1 else ""
        seed = f", seed {row['seed']}" if row["seed"] != reading.study.seed else ""
        traces.append(
            {
                "type": "scatter",
                "name": shown(f"#{row['trial']} {design}{rung}{seed}"),
                "x": x,
                "y": y,
                "customdata": [int(row["trial"])] * len(x),
                "mode": "lines+markers" if len(x) < 3 else "lines",
                "line": {"color": colour(method), "dash": _DASHES[turn % len(_DASHES)], "width": 2},
                "hovertemplate": "%{y:.3f} nats/token at %{x:.3s}FLOPs",
            }
        )
    found = layout("Training loss (nats per token)", "Training FLOPs of the run", "live")
    found["xaxis"] |= {"tickformat": "~s", "rangemode": "tozero"}
    found["title"] = {"text": ""}
    found |= {"showlegend": True, "hovermode": "closest"}
    return {"data": traces, "layout": found}


def _of_run(known: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """The evaluations of the row's run, by rung."""
    mine = (known["trial"] == row["trial"]) & (known["seed"] == row["seed"])
    own: pd.DataFrame = known[mine].sort_values("rung")
    return own


def _line(
    own: pd.DataFrame, running: int, curves: Mapping[int, Curve], decay: float
) -> tuple[list[float], list[float]]:
    """x and y: of lower rungs the part that the next one goes on from, then all of the running."""
    xs, ys = [], []
    for id, until, trunk in zip(own.index, own["until_flops"], own["trunk_flops"], strict=True):
        points = curves[id].points
        fork = np.inf if id == running else trunk or (1 - decay) * until
        kept = points["flops"] <= fork
        xs.append(points["flops"][kept])
        ys.append(points["loss"][kept])
    x, y = (np.concatenate(each) if each else np.zeros(0) for each in (xs, ys))
    at = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int))
    return _plain(x[at], 4), _plain(y[at], 5)


def _plain(values: Sequence[float] | np.ndarray, digits: int) -> list[float]:
    """Numbers as they travel: with as many digits as are seen."""
    return [float(f"{value:.{digits}g}") for value in values]


def _decay(reading: Reading) -> float:
    recipe = reading.study.config.get("recipe") or {}
    return float(recipe.get("decay", Recipe.decay))
