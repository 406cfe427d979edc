"""The frontier page's figures say what the columns say, of four trials and of 50,000."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from column_tools import evaluations_frame, study_record, trials_frame

from dashboard.data.designs import Specs
from dashboard.figures.looks import NONE, Style, look
from dashboard.figures.points import measured_at, points
from dashboard.figures.references import dense_reference, preset_names
from dashboard.figures.runs import runs
from dashboard.figures.scatter import FADED, GL_FROM, MOST_WEAK, scatter, thinned
from nas.search.chances import Chance
from nas.search.paired import Difference
from nas.search.pareto import non_dominated
from search_space.backbone import Backbone
from search_space.placement import reference
from search_space.spec import FFNSpec

STUDY = study_record()
TRIALS = trials_frame([2.3, 2.0, 2.2, 2.4], [9e5, 4e5, 1e5, 5e5], [4e6, 2e6, 9e6, 1e6])
NOTHING = evaluations_frame([])
AXES = ("bits_per_byte", "active_flops")


def drawn(trials=TRIALS, axes=AXES, study=STUDY, bounds=None, paused=None, **style):
    found = points(study, trials, NOTHING, bounds or {}, axes)
    every = (TRIALS if len(trials) < 5 else trials)["method"]
    wanted = {"colour": look("method", every), "shape": look("method", every, scale=False)} | style
    nobody = trials.iloc[:0] if paused is None else paused
    return scatter(study, found, Style(**wanted), nobody)


def marks(figure) -> dict[int, dict]:
    """Trial number -> its trace."""
    traces = [trace for trace in figure["data"] if "customdata" in trace]
    return {row[0]: trace for trace in traces for row in trace["customdata"]}


def named(figure, name: str) -> dict:
    return next(trace for trace in figure["data"] if trace.get("name") == name)


def test_every_trial_is_a_point_and_the_front_is_a_step_line() -> None:
    figure = drawn().figure
    assert set(marks(figure)) == {0, 1, 2, 3}
    assert {n for n, trace in marks(figure).items() if trace["opacity"] == 1} == {1, 2}
    line = named(figure, "front")
    assert (line["x"], line["y"], line["line"]["shape"]) == ([1e5, 4e5], [2.2, 2.0], "hv")
    layout = figure["layout"]
    assert (layout["xaxis"]["type"], layout["yaxis"]["type"]) == ("log", "linear")
    both = drawn(log="xy").figure["layout"]
    assert both["yaxis"]["title"]["text"] == "Bits per byte (log scale)"


def test_any_two_objectives_make_the_axes_and_a_third_makes_the_front_larger() -> None:
    other = drawn(axes=("total_params", "bits_per_byte")).figure
    assert named(other, "front")["x"] == [2.0, 2.4] and named(other, "front")["y"] == [2e6, 1e6]
    assert other["layout"]["yaxis"]["tickformat"] == "~s"
    three = drawn(axes=(*AXES, "total_params")).figure
    # 3 has the fewest parameters: off the line of the two axes that are drawn, and solid.
    assert {n for n, trace in marks(three).items() if trace["opacity"] == 1} == {1, 2, 3}
    assert 5e5 not in named(three, "front of bits/byte and active FLOPs/token")["x"]


def test_hidden_is_hidden_and_what_breaks_a_bound_is_hollow() -> None:
    assert set(marks(drawn(weak="hidden").figure)) == {1, 2}
    figure = drawn(bounds={"active_flops": 3e5}).figure
    hollow = named(figure, "breaks a bound")
    assert [row[0] for row in hollow["customdata"]] == [0, 1, 3]
    assert all(symbol.endswith("-open") for symbol in hollow["marker"]["symbol"])
    assert named(figure, "front")["x"] == [1e5], "an infeasible design is on no front"


def test_a_point_of_the_front_has_its_probability_and_its_paired_error() -> None:
    gap = Difference(value=0.2, windows_error=0.003, seeds_error=0.004, freedom=9.0, paired=True)
    chances = {1: Chance(probability=0.873, cheaper=(2, gap)), 2: Chance(probability=1.0)}
    figure = drawn(chances=chances).figure
    first, second = marks(figure)[1], marks(figure)[2]
    assert first["customdata"] == [[1, "87%"]] and second["customdata"] == [[2, "100%"]]
    assert first["error_y"]["array"] == [0.005], "the error of the difference, not of the design"
    assert second["error_y"]["array"] == [0.01], "of the one without a neighbour its own"
    assert "with probability 0.87" in first["text"][0]
    assert "less the next cheaper: +0.2000 ± 0.0050 (#2)" in first["text"][0]
    for part in ("#1", "topk 1x1", "2.0000 ± 0.0100", "400k"):
        assert part in first["text"][0]


def test_colour_and_shape_follow_any_knob() -> None:
    width = look("d_ff", pd.Series([64, 128, 4096, np.nan]))
    assert width.numeric and width.log
    figure = drawn(colour=width).figure
    assert marks(figure)[2]["marker"]["color"] == pytest.approx([2.107, 3.612])
    assert figure["layout"]["coloraxis"]["colorbar"]["ticktext"][0] == "64"
    assert marks(figure)[3]["text"] == ["dense 1x0<br>d_ff: 64", "dense 1x3<br>d_ff: -"]
    gated = look("gated", pd.Series([True, False, None, True], dtype=object))
    assert (gated.numeric, gated.categories) == (False, ("no", "yes", NONE))
    tinted = drawn(colour=gated).figure
    entries = [t["name"] for t in tinted["data"] if t.get("x") == [None]]
    assert entries == ["no", "yes", NONE, "method: dense", "method: topk", "method: hash"]
    assert len({gated.shape_of("yes"), gated.shape_of("no")}) == 2
    numbers = look("depth", pd.Series([1, 2, 4, 2]), scale=False)
    assert numbers.categories == ("1", "2", "4"), "shapes have no scale"


def test_names_and_references_are_drawn_where_they_are_asked_for() -> None:
    trials = TRIALS.assign(source=["dense", "tpe", "switch at active_flops", "random"])
    names = preset_names(trials)
    assert names.to_dict() == {0: "dense", 2: "switch at active_flops"}
    figure = drawn(trials, names=names.to_dict(), dense_trial=0).figure
    texts = next(t for t in figure["data"] if t.get("text") == ["dense", "switch at active_flops"])
    assert texts["x"] == [9e5, 1e5]
    notes = [note["text"] for note in figure["layout"]["annotations"]]
    assert notes == ["dense reference (#0)", "4-gram 2.10"], "3 and 5 lie out of the range"
    lines = figure["layout"]["shapes"]
    assert [line["x0"] for line in lines if line["yref"] == "y domain"] == [9e5]
    logs = drawn(trials, dense_trial=0, log="xy").figure["layout"]["annotations"]
    assert logs[0]["y"] == pytest.approx(np.log10(2.3)), "notes on a log axis are logarithms"
    assert "shapes" not in drawn(trials, dense_trial=0, references=False).figure["layout"]


def test_the_dense_reference_is_found_by_its_design() -> None:
    wanted = reference(Backbone.from_dict(STUDY.config["backbone"]))
    narrow = replace(wanted, expert_width=wanted.d_ff // 4)  # written otherwise, the same function
    others = [replace(wanted, activation="relu"), replace(wanted, lr_multiplier=2.0)]
    others += [replace(wanted, shared_width=64), FFNSpec(d_ff=32)]

    def found(*specs: FFNSpec) -> int | None:
        texts = np.array([json.dumps(spec.to_dict()) for spec in specs], dtype=object)
        numbers = np.arange(len(specs)) * 2
        trials = pd.DataFrame({"method": [spec.method for spec in specs]}, index=numbers)
        return dense_reference(STUDY, trials, Specs(numbers, texts))

    assert found(*others, wanted) == 8
    assert found(*others, narrow, wanted) == 8
    assert found(*others) is None
    assert found() is None


def test_a_lower_rung_shows_what_all_measured_there() -> None:
    trials = trials_frame([2.0, 3.0, 3.3], [4e5, 1e5, 5e5])
    trials["status"] = ["finished", "paused", "paused"]
    ways = [(0, 0, 0, 3.1, "finished"), (0, 0, 1, 2.1, "finished"), (0, 1, 1, 1.9, "finished")]
    ways += [(1, 0, 0, 3.0, "finished"), (2, 0, 0, 3.3, "finished"), (2, 0, 1, None, "running")]
    evaluations = evaluations_frame(ways)
    low = measured_at(trials, evaluations, 0)
    assert low["bits_per_byte"].to_dict() == {0: 3.1, 1: 3.0, 2: 3.3}
    assert (low["noise"] == 0.02).all() and low["p_frontier"].isna().all()
    high = measured_at(trials, evaluations, 1)
    assert high["bits_per_byte"].to_dict() == {0: 2.0} and high["seeds"].to_dict() == {0: 2}
    found = points(STUDY, trials, evaluations, {"active_flops": 4.5e5}, AXES, rung=0)
    assert found.frame["infeasible"].tolist() == [False, False, True]
    assert found.line == [1]
    assert points(STUDY, trials, evaluations, {}, AXES).frame.index.tolist() == [0]
    nowhere = points(STUDY, trials, evaluations, {}, AXES, rung=7)
    assert nowhere.frame.empty


def test_paused_designs_wait_in_the_legend() -> None:
    paused = TRIALS.iloc[[3]].assign(status="paused", bits_per_byte=1.0)
    top = TRIALS.iloc[:3]
    figure = drawn(top, paused=paused).figure
    waiting = named(figure, "paused at a lower rung")
    assert (waiting["visible"], waiting["customdata"]) == ("legendonly", [[3]])


def many(count: int = 50_000) -> pd.DataFrame:
    source = np.random.default_rng(0)
    flops = 10 ** source.uniform(5, 7, count)
    bits = 4 - 0.3 * np.log10(flops) + source.exponential(0.2, count)
    return trials_frame(bits, flops, 10 ** source.uniform(5, 8, count))


def test_of_50_000_trials_some_are_drawn_and_it_is_said() -> None:
    trials = many()
    width = look("d_ff", pd.Series(range(50_000)) % 4096 + 1)
    done = drawn(trials, axes=(*AXES, "total_params"), colour=width)
    assert len(json.dumps(done.figure)) < 300_000
    kept, there = done.weak
    assert kept == MOST_WEAK and there > 49_000
    assert {trace["type"] for trace in done.figure["data"]} == {"scatter"}
    kept = drawn(trials, keep=frozenset({49_999})).figure
    assert 49_999 in marks(kept), "what is selected is drawn"


def test_webgl_draws_what_is_beaten_where_there_are_very_many_points() -> None:
    rising = np.arange(1.0, GL_FROM + 1)
    bits, flops = np.concatenate([-rising, 1 - rising]), np.concatenate([rising, rising + 0.5])
    front = trials_frame(-rising, rising, rising)
    assert {trace["type"] for trace in drawn(front).figure["data"]} == {"scatter"}
    both = drawn(trials_frame(bits, flops, flops)).figure["data"]
    assert {trace["type"] for trace in both if trace.get("opacity") == FADED} == {"scattergl"}
    assert {trace["type"] for trace in both if trace.get("opacity") == 1.0} == {"scatter"}


def test_a_front_of_many_is_that_of_all_pairs() -> None:
    trials = many(2_000)
    for axes in (AXES, (*AXES, "total_params")):
        found = points(STUDY, trials, NOTHING, {}, axes)
        slow = non_dominated(trials[list(axes)].to_numpy().tolist())
        assert found.frame["front"].tolist() == slow
    alike = trials_frame([2.0] * 100, [1e5] * 100)
    assert points(STUDY, alike, NOTHING, {}, AXES).frame["front"].all(), "equals stay"


def test_what_is_drawn_stays_drawn_while_a_study_grows() -> None:
    before = set(thinned(many(20_000), MOST_WEAK, ()).index)
    after = set(thinned(many(20_100), MOST_WEAK, ()).index)
    assert len(before & after) > 0.98 * MOST_WEAK


def test_runs_are_lines_over_the_rungs_and_the_selected_are_thick() -> None:
    study = study_record(rungs=3)
    trials = trials_frame([2.0, 3.0, 3.1], [4e5, 1e5, 5e5])
    trials["frontier"] = [True, False, False]
    ways = [(0, 0, 0, 3.1, "finished"), (0, 0, 1, 2.6, "finished"), (0, 0, 2, 2.1, "finished")]
    ways += [(0, 1, 2, 1.9, "finished"), (1, 0, 0, 3.0, "finished"), (2, 0, 0, 3.1, "finished")]
    ways += [(2, 0, 1, None, "failed")]
    figure = runs(study, trials, evaluations_frame(ways))
    best = marks_of_lines(figure)["dense"]
    # The second seed went to the top at once: a point behind a gap.
    assert best["x"] == [1e9, 3e9, 9e9, None, 9e9] and best["line"]["width"] == 3
    assert best["customdata"] == [[0], [0], [0], None, [0]]
    assert "#0 dense 1x0" in best["text"][0] and "rung 0, seed 0" in best["text"][0]
    assert marks_of_lines(figure)["topk"]["line"]["width"] == 1, "it paused"
    cross = named(figure, "failed on the way to a rung")
    assert (cross["customdata"], cross["y"]) == ([[2]], [3.1])
    assert "no &lt;such&gt; luck" in cross["text"][0]
    assert figure["layout"]["xaxis"]["tickvals"] == [1e9, 3e9, 9e9]
    chosen = runs(study, trials, evaluations_frame(ways), selected=(1,))
    assert marks_of_lines(chosen)["topk"]["line"]["width"] == 3
    assert "selected" in [trace["name"] for trace in chosen["data"]]


def marks_of_lines(figure) -> dict[str, dict]:
    return {t["name"]: t for t in figure["data"] if t["mode"] == "lines+markers"}
