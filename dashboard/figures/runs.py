"""The runs of a study over its rungs, of many the front's, the selected and some others."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import pandas as pd

from dashboard.figures.scatter import numbers, thinned
from nas.store import StudyRecord
from nas.views.runs import Kind, run_trace
from nas.views.style import GREY, PAUSED, Data, colour, layout, shown, si, symbol
from search_space.contract import FAILURES
from search_space.methods import names

MOST = 300  # runs of a kind that are drawn
_CROSS = "failed on the way to a rung"
_EDGE = 0.06  # of the range: so far above all measures stands a run that failed without one
_ERROR_LENGTH = 100  # of an error in a hover text


# From the back to the front.
_KINDS = (
    Kind(PAUSED, 1, 5, 0.4),
    Kind("promoted", 1.5, 6, 0.9),
    Kind("on the Pareto frontier", 3, 9, 1.0),
)
_SELECTED = Kind("selected", 3, 9, 1.0)


def runs(
    study: StudyRecord,
    trials: pd.DataFrame,
    evaluations: pd.DataFrame,
    selected: Collection[int] = (),
) -> Data:
    """Bits per byte (y) that each run was measured at, against the rungs' FLOPs (x, log scale).

    trials, evaluations: as `Reading` has them.
    selected: trials whose runs are drawn thick, whatever is left out.
    A line a run. Runs that are paused below the top are faint, those of the front are thick; a
    cross is where a run failed, at its last measure or, without one, above all measures. A point's
    `customdata` is [trial number], and None in the gap between two runs.
    """
    whole = evaluations.sort_values(["trial", "seed", "rung"], kind="stable")
    kinds = _kinds(study, trials, whole, selected)
    traces, entries = [], []
    for kind in (*_KINDS, _SELECTED):
        mine = kinds.index[kinds == kind.name]
        drawn = mine if kind is _SELECTED or kind is _KINDS[2] else _some(mine)
        rows = whole.set_index(["trial", "seed"], drop=False)
        rows = rows[rows.index.isin(drawn) & (rows["status"] == "finished")]
        rows = rows[rows["bits_per_byte"].notna()]
        method = trials["method"].reindex(rows["trial"]).to_numpy()
        traces += [
            _lines(rows[method == name], trials, name, kind)
            for name in names()
            if (method == name).any()
        ]
        if len(rows):
            entries.append(_entry(kind, len(drawn), len(mine)))
    traces += _crosses(whole, trials)
    found = layout("Bits per byte", "Training FLOPs of a run up to the rung", study.name)
    found["xaxis"] |= _levels(evaluations)
    found |= {"hovermode": "closest", "dragmode": "select"}
    there = trials["method"].reindex(whole["trial"].unique())
    return {"data": [*traces, *_methods(set(there)), *entries[::-1]], "layout": found}


def _kinds(
    study: StudyRecord, trials: pd.DataFrame, whole: pd.DataFrame, selected: Collection[int]
) -> pd.Series:
    """The name of each run's kind, by (trial, seed)."""
    last = whole.groupby(["trial", "seed"]).tail(1).set_index(["trial", "seed"])
    below = (last["rung"] < study.top) & (last["status"] == "finished")
    below |= last["status"].isin([status.value for status in FAILURES])
    kinds = below.map({True: _KINDS[0].name, False: _KINDS[1].name})
    numbers_ = kinds.index.get_level_values("trial")
    kinds[numbers_.isin(trials.index[trials["frontier"].astype(bool)])] = _KINDS[2].name
    kinds[numbers_.isin(list(selected))] = _SELECTED.name
    return kinds


def _some(runs_: pd.Index) -> pd.Index:
    """At most MOST of the runs, spread over the study."""
    frame = pd.DataFrame(index=runs_.get_level_values("trial"))
    kept = set(thinned(frame, MOST, ()).index)
    return runs_[runs_.get_level_values("trial").isin(kept)]


def _lines(rows: pd.DataFrame, trials: pd.DataFrame, method: str, kind: Kind) -> Data:
    """All the runs of a method and a kind as one trace, with gaps: thousands would be slow."""
    x: list[float | None] = []
    y: list[float | None] = []
    marks: list[list[int] | None] = []
    texts: list[str] = []
    designs = trials["design"].reindex(rows["trial"])
    columns = [rows[name].tolist() for name in ("trial", "seed", "rung")]
    figures = numbers(rows["until_flops"]), numbers(rows["bits_per_byte"])
    before = None
    for trial, seed, rung, flops, bits, design in zip(*columns, *figures, designs, strict=True):
        if before not in (None, (trial, seed)):
            x.append(None)
            y.append(None)
            marks.append(None)
            texts.append("")
        before = trial, seed
        x.append(flops)
        y.append(bits)
        marks.append([trial])
        texts.append(f"<b>#{trial} {shown(design)}</b><br>rung {rung}, seed {seed}")
    return run_trace((x, y, marks, texts), method, kind)


def _crosses(whole: pd.DataFrame, trials: pd.DataFrame) -> list[Data]:
    measured = whole["bits_per_byte"]
    high, low = (measured.max(), measured.min()) if measured.notna().any() else (1.0, 1.0)
    edge = float(high + _EDGE * (high - low))
    failed = whole[whole["status"].isin([status.value for status in FAILURES])]
    failed = failed.head(MOST)
    if len(failed) == 0:
        return []
    designs = trials["design"].reindex(failed["trial"])
    done = whole[whole["trial"].isin(failed["trial"]) & measured.notna()]
    last = done.groupby(["trial", "seed"])["bits_per_byte"].last()
    at = [last.get((t, s), edge) for t, s in zip(failed["trial"], failed["seed"], strict=True)]
    return [
        {
            "type": "scatter",
            "x": numbers(failed["until_flops"]),
            "y": [float(f"{value:.5g}") for value in at],
            "customdata": [[int(number)] for number in failed["trial"]],
            "text": [
                _failure(row, design)
                for row, design in zip(failed.to_dict("records"), designs, strict=True)
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "mode": "markers",
            "name": _CROSS,
            "marker": {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": "#C0392B"}},
        }
    ]


def _failure(said: Mapping[Hashable, Any], design: str) -> str:
    title = f"<b>#{said['trial']} {shown(design)}</b>"
    where = f"{said['status']} on the way to rung {said['rung']}, seed {said['seed']}"
    return f"{title}<br>{where}<br>{shown(said['error'][:_ERROR_LENGTH])}"


def _methods(there: Collection[str]) -> list[Data]:
    marks = {name: {"color": colour(name), "symbol": symbol(name), "size": 9} for name in names()}
    return [
        _bare(name) | {"mode": "markers", "marker": marks[name]}
        for name in names()
        if name in there
    ]


def _entry(kind: Kind, drawn: int, there: int) -> Data:
    """A kind's entry of the legend, which has no point of its own."""
    name = kind.name if drawn == there else f"{kind.name} ({drawn:,} of {there:,})"
    line = {"color": GREY, "width": kind.width}
    return _bare(name) | {"mode": "lines", "line": line, "opacity": kind.opacity}


def _bare(name: str) -> Data:
    group = {"name": shown(name), "legendgroup": name, "hoverinfo": "skip"}
    return {"type": "scatter", "x": [None], "y": [None]} | group


def _levels(evaluations: pd.DataFrame) -> Data:
    """A log axis that has a line and a name at each rung."""
    by_rung = evaluations.groupby("rung")["until_flops"].last().sort_index()
    levels = list(zip(by_rung.index, by_rung, strict=True))
    return {
        "type": "log",
        "tickmode": "array",
        "tickvals": [level for _, level in levels],
        "ticktext": [f"rung {rung}<br>{si(level)} FLOPs" for rung, level in levels],
        "gridcolor": "rgba(128,128,128,0.5)",
    }
