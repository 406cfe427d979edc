"""A figure as SVG says what its data say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from nas.views.style import PALETTE
from nas.views.svg import MOST_POINTS, figure_svg
from nas.views.svg_marks import mark

SPACE = "{http://www.w3.org/2000/svg}"
POINTS = {
    "type": "scatter",
    "x": [1e3, 1e4, 1e5],
    "y": [3.0, 2.0, 1.0],
    "mode": "markers",
    "name": "topk & <b>",
    "text": ["<b>#0 a &lt;b&gt;</b><br>3.0000", "", "<b>#2 c</b>"],
    "customdata": [[0], [1], [2]],
    "marker": {"color": "#0072B2", "symbol": ["circle", "square", "star-open"], "size": 10},
    "error_y": {"array": [0.5, 0.0, 0.5], "visible": True},
}
LAYOUT = {
    "xaxis": {"type": "log", "title": {"text": "FLOPs (log scale)"}},
    "yaxis": {"title": {"text": "Bits per byte"}},
    "shapes": [{"y0": 2.5, "y1": 2.5, "line": {"dash": "dot"}}, {"y0": 99, "y1": 99, "line": {}}],
    "annotations": [{"y": 2.5, "text": "3-gram 2.50"}, {"y": 99, "text": "far off"}],
}


def drawn(*traces, layout=LAYOUT, **options):
    text = figure_svg({"data": list(traces), "layout": layout}, "A & B", **options)
    return ElementTree.fromstring(text)


def texts(root) -> list[str]:
    return [each.text for each in root.iter(f"{SPACE}text")]


def test_it_has_title_axes_legend_notes_and_what_is_under_a_point():
    root = drawn(POINTS)
    assert root.get("aria-label") == "A & B"
    found = texts(root)
    assert {"A & B", "FLOPs (log scale)", "Bits per byte", "topk &", "3-gram 2.50"} <= set(found)
    assert {"1k", "10k", "100k"} <= set(found) and "far off" not in found
    titles = [each.text for each in root.iter(f"{SPACE}title")]
    assert titles == ["#0 a <b>\n3.0000", "#2 c"]
    assert len(root.findall(f".//{SPACE}line[@stroke='#0072B2']")) == 2  # error bars


def test_a_log_axis_has_equal_steps_for_equal_ratios():
    trace = POINTS | {"marker": {"symbol": "circle", "size": 10}, "error_y": {}}
    x = [float(each.get("cx")) for each in drawn(trace | {"name": ""}).iter(f"{SPACE}circle")]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    y = [float(each.get("cy")) for each in drawn(trace | {"name": ""}).iter(f"{SPACE}circle")]
    assert y[0] < y[1] < y[2]  # down the page


def test_a_step_line_goes_across_before_it_goes_up_and_gaps_stay():
    line = {"x": [1, 2, None, 3, 4], "y": [1, 2, None, 3, 4], "mode": "lines"}
    layout = LAYOUT | {"xaxis": {}}
    (step,) = drawn(line | {"line": {"shape": "hv"}}, layout=layout).iter(f"{SPACE}path")
    assert re.fullmatch(r"M[\d.,]+H[\d.]+V[\d.]+M[\d.,]+H[\d.]+V[\d.]+", step.get("d"))
    (plain,) = drawn(line, layout=layout).iter(f"{SPACE}path")
    assert plain.get("d").count("M") == 2 and plain.get("d").count("L") == 2


def test_what_is_hidden_is_left_out_and_too_much_is_thinned():
    hidden = POINTS | {"visible": "legendonly", "name": "paused"}
    assert "paused" not in texts(drawn(POINTS, hidden))
    many = {"x": list(range(1, 9001)), "y": [1.0] * 9000, "mode": "markers", "name": ""}
    assert len(list(drawn(many).iter(f"{SPACE}circle"))) == MOST_POINTS


def test_points_lead_to_their_rows_and_a_page_lends_its_colours():
    root = drawn(POINTS, linked=[2], alone=False)
    assert [each.get("href") for each in root.iter(f"{SPACE}a")] == ["#trial-2"]
    assert root.get("color") is None and root.find(f"{SPACE}rect") is None
    assert drawn(POINTS).find(f"{SPACE}rect").get("fill") == "white"


@pytest.mark.parametrize("values", [[], [None], [2.0], [5.0, 5.0], [0.0, 1e-9], [-1e12, 1e12]])
def test_odd_ranges_are_drawn(values):
    trace = {"x": values, "y": values, "mode": "lines+markers"}
    for layout in ({}, LAYOUT, {"xaxis": {"type": "log"}, "yaxis": {"type": "log"}}):
        text = figure_svg({"data": [trace], "layout": layout}, "x")
        assert "nan" not in text and "inf" not in text


def test_marks_are_told_apart_by_shape():
    names = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "hexagon")
    shapes = {mark(name, 0, 0, 5, PALETTE[0]) for name in names}
    assert len(shapes) == 8
    assert 'fill="none"' in mark("star-open", 0, 0, 5, PALETTE[0])
