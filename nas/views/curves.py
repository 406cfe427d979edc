"""Training curves of runs: the trunk through all rungs, and each rung's branch where it left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.store.records import EvaluationRecord, StudyRecord, TrialRecord
from nas.views.style import Data, colour, layout, shown, spread
from search_space.contract import Progress, Recipe

CURVE_POINTS = 300  # of one curve that are drawn: a page is not much wider
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SPUR_OPACITY = 0.6


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """What there is to draw of one run.

    name: for the legend.
    parts: its evaluations by rung, each with its points by step.
    """

    trial: TrialRecord
    name: str
    parts: Sequence[tuple[EvaluationRecord, Sequence[Progress]]]


def run_curves(
    study: StudyRecord,
    trial: TrialRecord,
    evaluations: Iterable[EvaluationRecord],
    curves: Mapping[int, Sequence[Progress]],
) -> list[RunCurve]:
    """The trial's runs in the order of their first evaluations.

    evaluations: the trial's, or some of them.
    curves: evaluation id -> points.
    """
    runs: dict[int, list[EvaluationRecord]] = defaultdict(list)
    for each in evaluations:
        runs[each.seed].append(each)
    found = []
    for seed, own in runs.items():
        own.sort(key=lambda each: each.rung)
        name = f"#{trial.number} {trial.spec.label}"
        if study.rungs > 1:
            name += f", rung {own[-1].rung}"
        if len(runs) > 1 or seed != study.seed:
            name += f", seed {seed}"
        parts = [(each, curves.get(each.id, ())) for each in own]
        found.append(RunCurve(trial=trial, name=name, parts=parts))
    return found


def curves_data(study: StudyRecord, runs: Sequence[RunCurve]) -> Data:
    """Training loss (nats a token) against the run's training FLOPs, a line a run.

    A line is the run's trunk through all its rungs and the branch of the last one. The branches of
    lower rungs, whose weights were measured and dropped, are thin spurs where they left the trunk.
    """
    traces: list[Data] = []
    seen: dict[str, int] = defaultdict(int)
    decay = _decay(study)
    for run in runs:
        method = run.trial.spec.method
        dash = _DASHES[seen[method] % len(_DASHES)]
        seen[method] += 1
        whole, spurs = joined(run.parts, decay)
        points = spread(whole, CURVE_POINTS)
        line = {"color": colour(method), "dash": dash, "width": 2}
        # Another trial or seed is another group: its spurs come and go with it.
        group = f"{run.trial.number}/{run.parts[0][0].seed}" if run.parts else ""
        own = {"type": "scatter", "name": shown(run.name), "legendgroup": group}
        own["hovertemplate"] = "%{y:.3f} nats/token at %{x:.3s}FLOPs"
        traces.append(
            own
            | {
                "x": [point.flops for point in points],
                "y": [point.loss for point in points],
                "mode": "lines+markers" if len(points) < 3 else "lines",
                "line": line,
            }
        )
        if spurs:
            traces.append(own | _spurs(spurs) | {"line": line | {"width": 1}})
    found = layout("Training loss (nats per token)", "Training FLOPs", revision="curves")
    found["xaxis"] |= {"tickformat": "~s", "rangemode": "tozero"}
    found |= {"showlegend": True, "hovermode": "closest"}
    return {"data": traces, "layout": found}


def joined(
    parts: Sequence[tuple[EvaluationRecord, Sequence[Progress]]], decay: float
) -> tuple[list[Progress], list[list[Progress]]]:
    """The line of a run, and the spurs of its lower rungs, each from the trunk point it left at.

    parts: as in `RunCurve`.
    decay: the share of a rung's FLOPs that its branch decays over.
    """
    line: list[Progress] = []
    spurs = []
    for i, (evaluation, points) in enumerate(parts):
        fork = evaluation.trunk_flops or (1 - decay) * evaluation.until_flops
        trunk = [point for point in points if point.flops <= fork]
        branch = [point for point in points if point.flops > fork]
        line += trunk
        if i == len(parts) - 1:
            line += branch
        elif branch:
            spurs.append([*line[-1:], *branch])
    return line, spurs


def _spurs(spurs: Sequence[Sequence[Progress]]) -> Data:
    x: list[float | None] = []
    y: list[float | None] = []
    for points in spurs:
        spur = spread(points, CURVE_POINTS)
        x += [*(point.flops for point in spur), None]  # None is a gap between two
        y += [*(point.loss for point in spur), None]
    return {"x": x, "y": y, "mode": "lines", "opacity": _SPUR_OPACITY, "showlegend": False}


def _decay(study: StudyRecord) -> float:
    recipe = study.config.get("recipe") or {}
    return float(recipe.get("decay", Recipe.decay))
