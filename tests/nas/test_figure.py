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

from nas.figure import COLOURS, SYMBOLS, curves_data, pareto_figure, si, write_html
from nas.store import StudyRecord, StudyState, TrialRecord
from search_space.contract import EvalResult, Progress, Status
from search_space.errors import InputError
from search_space.spec import SELECTIONS, Dense, FFNSpec, Hash, TopK

STUDY = StudyRecord(
    id=1,
    uid="0" * 32,
    name="demo",
    config={},
    seed=0,
    budget_flops=1e12,
    objectives=["bits_per_byte", "active_flops"],
    state=StudyState.RUNNING,
    facts={"ngram_bits_per_byte": {"3": 2.9, "4": 2.1, "5": 1.2}},
    created_at=datetime.now(UTC),
    ended_at=None,
)
SPECS = {
    "dense": FFNSpec(d_ff=512, selection=Dense()),
    "topk": FFNSpec(d_ff=512, expert_width=64, selection=TopK(k=2)),
    "hash": FFNSpec(d_ff=512, expert_width=64, selection=Hash()),
}


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
        result=result,
        created_at=datetime.now(UTC),
        ended_at=None,
    )


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
    assert len(set(COLOURS.values())) == len(set(SYMBOLS.values())) == len(SELECTIONS)


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
    figure = pareto_figure(replace(STUDY, objectives=objectives, facts={}), TRIALS)
    assert set(markers(figure)) == {0, 1, 2, 3}


def test_an_empty_study_has_an_empty_figure() -> None:
    assert len(pareto_figure(STUDY, []).data) == 0
    assert curves_data({}, [])["data"] == []


def test_curves_are_told_apart_within_a_method() -> None:
    curves = {
        number: [
            Progress(evaluation=number, step=s, steps=3, flops=s * 1e9, loss=5.0 - s, seconds=1.0)
            for s in (1, 2, 3)
        ]
        for number in (1, 2)
    }
    figure = go.Figure(curves_data(curves, [TRIALS[1], TRIALS[2], TRIALS[3]]))
    assert [trace.name.split()[0] for trace in figure.data] == ["#1", "#2", "#3"]
    assert list(figure.data[0].x) == [1e9, 2e9, 3e9]
    assert list(figure.data[0].y) == [4.0, 3.0, 2.0]
    assert figure.data[0].line.color == figure.data[1].line.color == COLOURS["topk"]
    assert figure.data[0].line.dash != figure.data[1].line.dash
    assert len(figure.data[2].x or ()) == 0


def test_the_html_file_needs_no_network(tmp_path: Path) -> None:
    path = write_html(pareto_figure(STUDY, TRIALS), tmp_path / "pareto.html")
    page = path.read_text()
    assert "Plotly.newPlot" in page
    assert re.findall(r"<(?:script|link)[^>]*(?:src|href)=", page) == []
    with pytest.raises(InputError, match="cannot write the figure"):
        write_html(pareto_figure(STUDY, TRIALS), tmp_path / "none" / "pareto.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (999, "999"), (999_950, "1M"), (1_234_567, "1.23M"), (3e18, "3E")],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert si(value) == text
    if value:
        assert si(-value) == f"-{text}"


def test_importing_the_figures_does_not_import_plotly() -> None:
    program = "import sys, nas.figure; print('plotly' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
