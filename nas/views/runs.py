"""The runs of a study over its rungs: which were promoted, which paused, and what it changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.search.bounds import limits
from nas.search.pareto import frontier
from nas.store.records import EvaluationRecord, StudyRecord, TrialRecord
from nas.views.style import (
    GREY,
    MOST_PAUSED,
    PAUSED,
    Data,
    colour,
    layout,
    paused_name,
    ring,
    shown,
    si,
    spread,
    symbol,
)
from search_space.contract import FAILURES, Status
from search_space.methods import names

_CROSS = "failed on the way to a rung"
_EDGE = 0.06  # of the range: so far above all measures stands a run that failed without one
_ERROR_LENGTH = 100  # of an error in a hover text


@dataclass(frozen=True)
class Kind:
    """How the runs of one kind look."""

    name: str
    width: float
    size: float
    opacity: float


# From the back to the front.
_PAUSED = Kind(PAUSED, 1, 5, 0.4)
_PROMOTED = Kind("promoted", 1.5, 6, 0.9)
_FRONTIER = Kind("on the Pareto frontier", 3, 9, 1.0)


@dataclass(frozen=True)
class _Run:
    """A run: its evaluations by rung, and those that were measured."""

    trial: TrialRecord
    kind: Kind
    evaluations: Sequence[EvaluationRecord]
    measured: Sequence[EvaluationRecord]


def runs_data(
    study: StudyRecord,
    trials: Iterable[TrialRecord],
    evaluations: Iterable[EvaluationRecord],
    chosen: int | None = None,
) -> Data:
    """Bits per byte (y) that each run was measured at, against the rungs' FLOPs (x, log scale).

    A line a run. Runs that are paused below the top are faint, and of very many some are left out;
    those of the designs on the study's frontier are thick. A cross is where a run failed, at its
    last measure or, without one, above all measures. The runs of the trial of number `chosen` are
    ringed. A point's `customdata` is [trial number], and None in the gap between two runs.
    """
    evaluations = list(evaluations)
    runs = _runs(study, list(trials), evaluations)
    traces = []
    for kind in (_PAUSED, _PROMOTED, _FRONTIER):
        own: Sequence[_Run] = [run for run in runs if run.kind is kind and run.measured]
        if kind is _PAUSED:
            there, own = len(own), spread(own, MOST_PAUSED)
            paused = paused_name(len(own), there)
        for method in names():
            mine = [run for run in own if run.trial.spec.method == method]
            traces.append(_lines(mine, method, kind))
    traces.append(_crosses(runs))
    ringed = [each for run in runs if run.trial.number == chosen for each in run.measured]
    x, y = [each.until_flops for each in ringed], [each.bits_per_byte for each in ringed]
    traces.append(ring(x, y, 20))
    traces = [trace for trace in traces if trace["x"]]
    found = layout("Bits per byte", "Training FLOPs of a run up to the rung", study.name)
    found["xaxis"] |= _levels(evaluations)
    found["hovermode"] = "closest"
    return {"data": [*traces, *_legend(runs, paused)], "layout": found}


def _runs(
    study: StudyRecord, trials: Sequence[TrialRecord], evaluations: Iterable[EvaluationRecord]
) -> list[_Run]:
    best = {trial.number for trial in frontier(trials, study.objectives, limits(study))}
    by_number = {trial.number: trial for trial in trials}
    grouped: dict[tuple[int, int], list[EvaluationRecord]] = defaultdict(list)
    for each in evaluations:
        if each.trial in by_number:
            grouped[each.trial, each.seed].append(each)
    runs = []
    for (number, _), own in grouped.items():
        own.sort(key=lambda each: each.rung)
        measured = [each for each in own if each.bits_per_byte is not None]
        measured = [each for each in measured if each.status is Status.FINISHED]
        last = own[-1]
        below = last.rung < study.top and last.status is Status.FINISHED
        kind = _PAUSED if below or last.status in FAILURES else _PROMOTED
        kind = _FRONTIER if number in best else kind
        runs.append(_Run(by_number[number], kind, own, measured))
    return runs


def _lines(runs: Sequence[_Run], method: str, kind: Kind) -> Data:
    """All the runs of a method and a kind as one trace, with gaps: thousands would be slow."""
    points = [_points(run) for run in runs]
    x, y, numbers, texts = ([item for each in points for item in each[i]] for i in range(4))
    return run_trace((x, y, numbers, texts), method, kind)


def run_trace(
    points: Sequence[Sequence[object]],
    method: str,
    kind: Kind,
) -> Data:
    """Runs of a method and a kind as a trace.

    points: x, y, customdata and hover texts, with a gap between two runs.
    """
    x, y, numbers, texts = points
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "customdata": numbers,
        "text": texts,
        "hovertemplate": "%{text}<br>%{y:.4f} bits/byte<extra></extra>",
        "mode": "lines+markers",
        "name": method,
        "legendgroup": method,
        "showlegend": False,
        "opacity": kind.opacity,
        "line": {"color": colour(method), "width": kind.width},
        "marker": {"symbol": symbol(method), "size": kind.size, "color": colour(method)},
    }


def _points(
    run: _Run,
) -> tuple[list[float | None], list[float | None], list[list[int] | None], list[str]]:
    """A run's x, y, customdata and hover texts, and the gap after it."""
    title = _title(run)
    return (
        [*(each.until_flops for each in run.measured), None],
        [*(each.bits_per_byte for each in run.measured), None],
        [*([run.trial.number] for _ in run.measured), None],
        [*(f"{title}<br>rung {each.rung}, seed {each.seed}" for each in run.measured), ""],
    )


def _title(run: _Run) -> str:
    return f"<b>#{run.trial.number} {shown(run.trial.spec.label)}</b>"


def _crosses(runs: Sequence[_Run]) -> Data:
    bits = [each.bits_per_byte or 0.0 for run in runs for each in run.measured] or [1.0]
    edge = max(bits) + _EDGE * (max(bits) - min(bits))
    failed = [(run, each) for run in runs for each in run.evaluations if each.status in FAILURES]
    return {
        "type": "scatter",
        "x": [each.until_flops for _, each in failed],
        "y": [run.measured[-1].bits_per_byte if run.measured else edge for run, _ in failed],
        "customdata": [[run.trial.number] for run, _ in failed],
        "text": [
            f"{_title(run)}<br>{each.status.value} on the way to rung {each.rung}, "
            f"seed {each.seed}<br>{shown(each.error[:_ERROR_LENGTH])}"
            for run, each in failed
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "mode": "markers",
        "name": _CROSS,
        "legendgroup": _CROSS,
        "marker": {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": "#C0392B"}},
    }


def _legend(runs: Sequence[_Run], paused: str) -> list[Data]:
    """Entries for the methods and for the kinds of lines, which have no point of their own.

    paused: the name of the paused ones.
    """
    methods = {run.trial.spec.method for run in runs if run.measured}
    kinds = {run.kind for run in runs if run.measured}
    entries = [
        _entry(method, colour(method), 2, 1.0)
        | {
            "mode": "markers",
            "marker": {"color": colour(method), "symbol": symbol(method), "size": 9},
        }
        for method in names()
        if method in methods
    ]
    entries += [
        _entry(paused if kind is _PAUSED else kind.name, GREY, kind.width, kind.opacity)
        for kind in (_FRONTIER, _PROMOTED, _PAUSED)
        if kind in kinds
    ]
    return entries


def _entry(name: str, colour: str, width: float, opacity: float) -> Data:
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "name": name,
        "legendgroup": name,  # of a method: its lines come and go with the entry
        "mode": "lines",
        "line": {"color": colour, "width": width},
        "opacity": opacity,
        "hoverinfo": "skip",
    }


def _levels(evaluations: Iterable[EvaluationRecord]) -> Data:
    """A log axis that has a line and a name at each rung."""
    level = {each.rung: each.until_flops for each in evaluations}
    rungs = sorted(level)
    return {
        "type": "log",
        "tickmode": "array",
        "tickvals": [level[rung] for rung in rungs],
        "ticktext": [f"rung {rung}<br>{si(level[rung])} FLOPs" for rung in rungs],
        "gridcolor": "rgba(128,128,128,0.5)",
    }
