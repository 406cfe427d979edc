"""The figures say what the trials say."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import plotly.graph_objects as go
import pytest
from patience import WAIT_S

from nas.store import EvaluationRecord, Facts, StudyRecord, StudyState, TrialRecord
from nas.views.curves import curves_data, run_curves
from nas.views.noise import noise
from nas.views.pareto import pareto_data
from nas.views.runs import runs_data
from nas.views.style import colour, si, symbol, write_html
from search_space.contract import EvalResult, Progress, Status
from search_space.errors import InputError
from search_space.methods import names
from search_space.methods.dense import Dense
from search_space.methods.hash import Hash
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec


def pareto_figure(*arguments, **options) -> go.Figure:
    return go.Figure(pareto_data(*arguments, **options))


def runs_figure(*arguments, **options) -> go.Figure:
    return go.Figure(runs_data(*arguments, **options))


STUDY = StudyRecord(
    id=1,
    uid="0" * 32,
    name="demo",
    config={},
    seed=0,
    budget_flops=1e12,
    objectives=["bits_per_byte", "active_flops"],
    state=StudyState.RUNNING,
    facts=Facts(ngram_bits_per_byte={"3": 2.9, "4": 2.1, "5": 1.2}),
    created_at=datetime.now(UTC),
    ended_at=None,
)
SPECS = {
    "dense": FFNSpec(d_ff=512, selection=Dense()),
    "topk": FFNSpec(d_ff=512, expert_width=64, selection=TopK(k=2)),
    "hash": FFNSpec(d_ff=512, expert_width=64, selection=Hash()),
}


RUNGS = replace(STUDY, rungs=3, config={"recipe": {"decay": 0.25}})
LEVELS = (1e9, 4e9, 16e9)


def trial(number: int, method: str, bpb: float, flops: float, params: float = 1e6) -> TrialRecord:
    spec = SPECS[method]
    result = EvalResult(
        evaluation=number, status=Status.FINISHED, bits_per_byte=bpb, bits_per_byte_se=0.01
    )
    return TrialRecord(
        id=number,
        study_id=1,
        number=number,
        spec=spec,
        key=spec.key,
        params={},
        source="x",
        cost={"active_flops": flops, "total_params": params},
        status=Status.FINISHED,
        rung=0,
        seeds=1,
        bits_per_byte=bpb,
        active_flops=None,
        result=result,
        created_at=datetime.now(UTC),
        ended_at=None,
    )


def evaluation(
    trial: int,
    rung: int,
    bits: float | None,
    *,
    seed: int = 0,
    status: Status = Status.FINISHED,
    trunk: float = 0.0,
) -> EvaluationRecord:
    return EvaluationRecord(
        id=100 * trial + 10 * seed + rung,
        trial_id=trial,
        trial=trial,
        seed=seed,
        rung=rung,
        attempt=1,
        losses=0,
        owner="",
        status=status,
        until_flops=LEVELS[rung],
        start_flops=0.0,
        reserved=0.0,
        flops=1.0,
        trunk_flops=trunk,
        bits_per_byte=bits,
        bits_per_byte_se=None,
        active_flops=None,
        seconds=1.0,
        error="" if bits else "no <such> luck",
        created_at=datetime.now(UTC),
        ended_at=None,
    )


def points(id: int, *at: tuple[float, float]) -> list[Progress]:
    """at: FLOPs and loss."""
    return [
        Progress(evaluation=id, step=i, steps=9, flops=flops, loss=loss, seconds=1.0)
        for i, (flops, loss) in enumerate(at)
    ]


TRIALS = [
    trial(0, "dense", 2.3, 9e5),
    trial(1, "topk", 2.0, 4e5),
    trial(2, "topk", 2.4, 5e5),
    trial(3, "hash", 2.2, 1e5),
]


def markers(figure) -> dict[int, object]:
    """Trial number -> its trace."""
    traces = [trace for trace in figure.data if trace.customdata is not None]
    return {row[0]: trace for trace in traces for row in trace.customdata}


def test_every_finished_trial_is_a_point_and_the_dominated_are_faded() -> None:
    running = replace(TRIALS[0], number=9, status=Status.RUNNING, result=None)
    figure = pareto_figure(STUDY, [*TRIALS, running])
    by_number = markers(figure)
    assert set(by_number) == {0, 1, 2, 3}
    opacity = {number: trace.opacity for number, trace in by_number.items()}
    assert opacity[1] == opacity[3] == 1.0
    assert opacity[0] == opacity[2] < 0.5
    assert by_number[1].error_y.array == (0.01,)
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.uirevision == "demo"


def test_the_frontier_is_a_descending_step_line() -> None:
    line = next(trace for trace in pareto_figure(STUDY, TRIALS).data if trace.mode == "lines")
    assert line.line.shape == "hv"
    assert list(zip(line.x, line.y, strict=True)) == [(1e5, 2.2), (4e5, 2.0)]


def test_a_third_objective_keeps_points_off_the_line_unfaded() -> None:
    small = trial(4, "dense", 2.35, 9.5e5, params=1e3)
    study = replace(STUDY, objectives=[*STUDY.objectives, "total_params"])
    figure = pareto_figure(study, [*TRIALS, small])
    assert markers(figure)[4].opacity == 1.0
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert 9.5e5 not in line.x


def test_each_method_has_one_legend_entry_a_colour_and_a_shape() -> None:
    figure = pareto_figure(STUDY, TRIALS)
    shown = [t.name for t in figure.data if t.mode == "markers" and t.showlegend]
    assert sorted(shown) == ["dense", "hash", "topk"]
    for mark in (colour, symbol):
        assert len({mark(method) for method in names()}) == len(names())


def test_the_chosen_trial_is_ringed() -> None:
    ring = pareto_figure(STUDY, TRIALS, chosen=2).data[-1]
    assert (ring.x, ring.y, ring.hoverinfo) == ((5e5,), (2.4,), "skip")
    without = pareto_figure(STUDY, TRIALS, chosen=99)
    assert len(without.data) == len(pareto_figure(STUDY, TRIALS).data)


def test_hover_text_tells_the_design_its_quality_and_its_costs() -> None:
    text = markers(pareto_figure(STUDY, TRIALS))[1].text[0]
    for part in ("#1", SPECS["topk"].label, "2.0000 ± 0.0100", "400k", "1M"):
        assert part in text


def test_only_ngrams_within_the_range_are_drawn() -> None:
    notes = [note.text for note in pareto_figure(STUDY, TRIALS).layout.annotations]
    assert notes == ["4-gram 2.10"]


@pytest.mark.parametrize("objectives", [["bits_per_byte"], ["active_flops"]])
def test_one_objective_is_drawn_against_another(objectives: list[str]) -> None:
    figure = pareto_figure(replace(STUDY, objectives=objectives, facts=Facts()), TRIALS)
    assert set(markers(figure)) == {0, 1, 2, 3}


def test_an_empty_study_has_an_empty_figure() -> None:
    assert len(pareto_figure(STUDY, []).data) == 0
    assert curves_data(STUDY, [])["data"] == []
    assert len(runs_figure(STUDY, [], []).data) == 0


def test_paused_trials_are_hidden_marks_that_compare_with_nothing() -> None:
    top = [replace(each, rung=2) for each in TRIALS]
    paused = replace(trial(7, "dense", 1.0, 1e4), status=Status.PAUSED, rung=1)
    figure = pareto_figure(RUNGS, [*top, paused])
    marks = markers(figure)[7]
    assert (marks.name, marks.visible) == ("paused at a lower rung", "legendonly")
    assert marks.opacity < 0.5 and marks.marker.size < 8
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert 1e4 not in line.x, "a paused design is on no frontier"
    assert {number for number, trace in markers(figure).items() if trace.opacity == 1} == {1, 3}
    assert figure.layout.yaxis.range is None, "the axis may grow when they are shown"
    assert figure.layout.yaxis.autorangeoptions.include[0] > 1.9
    assert "1.0000 ± 0.0100 bits/byte<br>rung 1, 1 seed" in marks.text[0]


def test_of_very_many_paused_designs_some_are_drawn() -> None:
    bits = [3.0 + number / 1e4 for number in range(1200)]
    many = [
        replace(trial(number, "topk", each, 1e5), status=Status.PAUSED)
        for number, each in enumerate(bits)
    ]
    scatter = pareto_figure(RUNGS, many).data[0]
    assert (len(scatter.x), scatter.name) == (500, "paused at a lower rung (500 of 1,200)")
    assert [scatter.customdata[i][0] for i in (0, -1)] == [0, 1199]
    lines, *entries = runs_figure(
        RUNGS, many, [evaluation(n, 0, b) for n, b in enumerate(bits)]
    ).data
    assert len([y for y in lines.y if y is not None]) == 500
    assert entries[-1].name == "paused at a lower rung (500 of 1,200)"


def test_bars_are_the_deviation_of_seeds_once_it_is_known() -> None:
    study = replace(RUNGS, deviation=0.04)
    repeated = replace(trial(1, "topk", 2.0, 4e5), rung=2, seeds=4)
    assert noise(study, repeated) == 0.02
    assert noise(study, replace(repeated, seeds=1)) == 0.04
    assert noise(study, replace(repeated, rung=1)) == 0.01, "known of the top rung alone"
    assert noise(RUNGS, repeated) == 0.01
    assert noise(study, replace(repeated, bits_per_byte=None)) is None
    point = markers(pareto_figure(study, [repeated]))[1]
    assert point.error_y.array == (0.02,)
    assert "2.0000 ± 0.0200 bits/byte<br>rung 2 (top), 4 seeds" in point.text[0]


def test_curves_are_told_apart_within_a_method() -> None:
    runs = []
    for number in (1, 2, 3):
        mine = evaluation(number, 0, 2.0)
        curves = {mine.id: points(mine.id, (1e8, 4.0), (2e8, 3.0), (9e8, 2.0))}
        runs += run_curves(STUDY, TRIALS[number], [mine], curves if number < 3 else {})
    figure = go.Figure(curves_data(STUDY, runs))
    assert [trace.name.split()[0] for trace in figure.data] == ["#1", "#2", "#3"]
    assert list(figure.data[0].x) == [1e8, 2e8, 9e8]
    assert list(figure.data[0].y) == [4.0, 3.0, 2.0]
    assert figure.data[0].line.color == figure.data[1].line.color == colour("topk")
    assert figure.data[0].line.dash != figure.data[1].line.dash
    assert len(figure.data[2].x or ()) == 0
    assert "rung" not in figure.data[0].name, "a study of one rung does not speak of rungs"


def test_a_run_is_one_line_over_its_rungs_with_the_branches_as_spurs() -> None:
    # Branches leave at 3/4 of a level; where the worker said another place, it is that one.
    own = [evaluation(1, 0, 3.0), evaluation(1, 1, 2.5, trunk=2.8e9), evaluation(1, 2, None)]
    curves = {
        100: points(100, (0.5e9, 5.0), (0.75e9, 4.5), (0.9e9, 4.0), (1e9, 3.9)),
        101: points(101, (1.5e9, 4.2), (2.8e9, 4.1), (2.9e9, 3.7), (4e9, 3.5)),
        102: points(102, (8e9, 3.6), (12e9, 3.4), (16e9, 3.0)),
    }
    line, spurs = curves_data(RUNGS, run_curves(RUNGS, TRIALS[1], reversed(own), curves))["data"]
    assert line["x"] == [0.5e9, 0.75e9, 1.5e9, 2.8e9, 8e9, 12e9, 16e9]
    assert line["y"] == [5.0, 4.5, 4.2, 4.1, 3.6, 3.4, 3.0]
    assert spurs["x"] == [0.75e9, 0.9e9, 1e9, None, 2.8e9, 2.9e9, 4e9, None]
    assert spurs["y"] == [4.5, 4.0, 3.9, None, 4.1, 3.7, 3.5, None]
    assert line["name"].endswith(", rung 2") and not spurs["showlegend"]
    assert line["line"]["color"] == spurs["line"]["color"] == colour("topk")


def test_a_run_that_was_just_promoted_ends_at_its_trunk() -> None:
    own = [evaluation(1, 0, 3.0), evaluation(1, 1, None, status=Status.RUNNING)]
    curves = {100: points(100, (0.75e9, 4.5), (1e9, 3.9))}
    line, spur = curves_data(RUNGS, run_curves(RUNGS, TRIALS[1], own, curves))["data"]
    assert (line["x"], spur["x"]) == ([0.75e9], [0.75e9, 1e9, None])


def test_further_seeds_are_further_lines_of_the_same_colour() -> None:
    own = [evaluation(1, 2, 2.0), evaluation(1, 2, 2.1, seed=1)]
    curves = {each.id: points(each.id, (1e9, 4.0), (2e9, 3.0)) for each in own}
    first, second = curves_data(RUNGS, run_curves(RUNGS, TRIALS[1], own, curves))["data"]
    assert (first["name"].endswith("seed 0"), second["name"].endswith("seed 1")) == (True, True)
    assert first["line"]["color"] == second["line"]["color"]
    assert first["line"]["dash"] != second["line"]["dash"]


def drawn_runs() -> go.Figure:
    """1 is the best, with two seeds; 0 reached the top, 2 paused, 3 failed on the way to rung 1.

    4 failed on the way to rung 0, 5 is on its way to rung 1.
    """
    stands = {0: Status.FINISHED, 1: Status.FINISHED, 2: Status.PAUSED, 3: Status.FAILED}
    stands |= {4: Status.DIVERGED, 5: Status.RUNNING}
    methods = ("dense", "topk", "topk", "hash", "dense", "dense")
    bits = (2.3, 2.0, 3.0, 3.1, 0.0, 3.2)
    trials = [
        replace(trial(n, methods[n], bits[n], 1e5), status=status, bits_per_byte=bits[n] or None)
        for n, status in stands.items()
    ]
    evaluations = [
        *(evaluation(0, rung, bits) for rung, bits in enumerate((3.0, 2.6, 2.3))),
        *(evaluation(1, rung, bits) for rung, bits in enumerate((2.9, 2.5, 2.1))),
        evaluation(1, 2, 1.9, seed=1),
        evaluation(2, 0, 3.0),
        evaluation(3, 0, 3.1),
        evaluation(3, 1, None, status=Status.FAILED),
        evaluation(4, 0, None, status=Status.DIVERGED),
        evaluation(5, 0, 3.2),
        evaluation(5, 1, None, status=Status.RUNNING),
    ]
    return runs_figure(RUNGS, trials, evaluations, chosen=2)


def test_a_run_is_a_line_over_the_rungs_it_was_measured_at() -> None:
    figure = drawn_runs()
    lines = [t for t in figure.data if t.mode == "lines+markers"]
    best = next(t for t in lines if t.name == "topk" and t.opacity == 1)
    # The second seed went to the top at once: a point behind a gap.
    assert best.x == (*LEVELS, None, LEVELS[2], None)
    assert best.y == (2.9, 2.5, 2.1, None, 1.9, None)
    assert [row and row[0] for row in best.customdata] == [1, 1, 1, None, 1, None]
    assert "#1" in best.text[0] and "rung 0, seed 0" in best.text[0]
    axis = figure.layout.xaxis
    assert (axis.type, axis.tickvals) == ("log", LEVELS)
    assert [text.split("<br>")[0] for text in axis.ticktext] == ["rung 0", "rung 1", "rung 2"]


def test_the_frontier_is_thick_what_paused_or_failed_is_faint() -> None:
    looks = {}
    for trace in (t for t in drawn_runs().data if t.mode == "lines+markers"):
        for number in {row[0] for row in trace.customdata if row}:
            looks[number] = (trace.opacity > 0.8, trace.line.width)
    assert looks == {1: (True, 3), 0: (True, 1.5), 5: (True, 1.5), 2: (False, 1), 3: (False, 1)}


def test_a_design_that_breaks_a_bound_is_not_thick() -> None:
    own = [evaluation(1, 2, 2.0)]
    for ratio, width in ((1e9, 3), (1e-9, 1.5)):
        study = replace(RUNGS, config={"constraints": {"total_params": ratio}})
        assert runs_figure(study, TRIALS[1:2], own).data[0].line.width == width


def test_a_failed_run_is_a_cross_where_it_was_last_measured() -> None:
    crosses = next(t for t in drawn_runs().data if t.name == "failed on the way to a rung")
    assert [row[0] for row in crosses.customdata] == [3, 4]
    assert crosses.x == (LEVELS[1], LEVELS[0])
    assert crosses.y[0] == 3.1
    assert crosses.y[1] > 3.2, "without a measure it is above all"
    assert "diverged on the way to rung 0" in crosses.text[1]
    assert "no &lt;such&gt; luck" in crosses.text[1]


def test_the_runs_of_the_chosen_trial_are_ringed() -> None:
    ring = next(t for t in drawn_runs().data if t.marker.symbol == "circle-open")
    assert (ring.x, ring.y) == ((LEVELS[0],), (3.0,))


def test_the_html_file_needs_no_network(tmp_path: Path) -> None:
    both = [pareto_data(STUDY, TRIALS), drawn_runs().to_plotly_json()]
    page = write_html(both, tmp_path / "pareto.html").read_text()
    assert page.count("Plotly.newPlot(") == 2
    assert len(page) < 1.5 * len(write_html(both[:1], tmp_path / "one.html").read_text())
    assert "rung 2" in page
    assert re.findall(r"<(?:script|link)[^>]*(?:src|href)=", page) == []
    with pytest.raises(InputError, match="cannot write the figure"):
        write_html(both, tmp_path / "none" / "pareto.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (999, "999"), (999_950, "1M"), (1_234_567, "1.23M"), (3e18, "3E")],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert si(value) == text
    if value:
        assert si(-value) == f"-{text}"


def test_importing_the_figures_does_not_import_plotly() -> None:
    program = "import sys, nas.views; print('plotly' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert done.stdout.strip() == "False"
