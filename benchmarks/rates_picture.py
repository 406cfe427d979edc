"""The learning-rate rule as a picture: its fit, and what it loses where it was not fitted.

Plotly draws it in the browser that the dashboard's tests drive, for a document needs a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright
from plotly.subplots import make_subplots

from benchmarks.chromium import chromium
from benchmarks.rates_fit import Point, fit, means, regrets
from nas.views.style import GREY, PALETTE
from search_space.errors import require

SIZE = {"width": 1100, "height": 480}


def draw(fitted: list[Point], held: list[Point], bar: float) -> go.Figure:
    """Left the cells' means and parabolas over the rate, right the regrets of held-out cells.

    bar: the most that the rule may lose.
    """
    figure = make_subplots(
        1,
        2,
        column_widths=[0.6, 0.4],
        horizontal_spacing=0.17,
        subplot_titles=("fitted cells", "regret by the parabola, held-out cells"),
    )
    for trace in fit_traces(fitted):
        figure.add_trace(trace, 1, 1)
    losses = regrets(held)
    names = sorted(losses, key=losses.__getitem__)
    figure.add_trace(
        go.Bar(
            x=[losses[name] for name in names],
            y=names,
            orientation="h",
            marker_color=[PALETTE[0] if losses[name] <= bar else PALETTE[1] for name in names],
            showlegend=False,
        ),
        1,
        2,
    )
    figure.add_vline(x=bar, line_dash="dot", line_color=GREY, row=1, col=2)
    figure.update_xaxes(title_text="Muon's rate", type="log", dtick=math.log10(2), row=1, col=1)
    figure.update_yaxes(title_text="bits per byte above the least", row=1, col=1)
    figure.update_xaxes(title_text="bits per byte", rangemode="tozero", row=1, col=2)
    figure.update_yaxes(automargin=True, tickfont_size=10, row=1, col=2)
    figure.update_layout(
        template="plotly_white", legend={"orientation": "h", "y": -0.2}, margin_t=50, **SIZE
    )
    return figure


def fit_traces(points: list[Point]) -> Iterable[go.Scatter]:
    """A cell's means as markers and its parabola as a line, over Muon's rate."""
    found, of_cells = fit(points), means(points)
    for number, (cell, best) in enumerate(found.optima.items()):
        colour, least = PALETTE[number % len(PALETTE)], found.least[cell]
        rates = {point.multiple: point.matrix_lr for point in points if point.cell == cell}
        line = [math.log2(min(rates.values())) + 0.1 * step for step in range(-2, 60)]
        line = [x for x in line if x <= math.log2(max(rates.values())) + 0.2]
        yield go.Scatter(
            x=[2**x for x in line],
            y=[found.curvature * (x - best) ** 2 for x in line],
            mode="lines",
            line_color=colour,
            name=cell,
        )
        yield go.Scatter(
            x=[rates[multiple] for multiple in of_cells[cell]],
            y=[bits - least for bits in of_cells[cell].values()],
            mode="markers",
            marker_color=colour,
            showlegend=False,
        )


def save(figure: Any, file: Path) -> None:
    """Write a figure as a PNG. Raises InputError where there is no browser."""
    browser_file = chromium()
    require(
        browser_file is not None, "picture: there is no chromium here to draw with; install one"
    )
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_file, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.set_content(figure.to_html(include_plotlyjs=True, config={"staticPlot": True}))
        page.wait_for_selector(".main-svg")
        page.locator(".plotly-graph-div").screenshot(path=file)
        browser.close()
