"""The pages: one file each, with `draw(context)`. `PAGES` lists them in the order of the menu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dashboard.context import Context
from dashboard.pages import compare, export, frontier, launch, live, studies, trial, why

CHART = "[data-testid=stMain] .js-plotly-plot"
TABLE = "[data-testid=stDataFrame] canvas"


@dataclass(frozen=True)
class Page:
    """A page of the menu.

    path: its address below the server's; the default page's is the server's own.
    icon: of Material Symbols, as Streamlit names them.
    ready: CSS selector of its main part: once that is there, the page is of use.
    bare: whether it is drawn, without a study, where there is no database yet.
    """

    title: str
    path: str
    icon: str
    draw: Callable[[Context], None]
    default: bool = False
    ready: str = CHART
    bare: bool = False


PAGES = (
    Page(
        "Studies", "studies", ":material/list:", studies.draw,
        ready=f".st-key-studies-board {TABLE}",
    ),
    Page("Frontier", "frontier", ":material/scatter_plot:", frontier.draw, default=True),
    Page("Why", "why", ":material/lightbulb:", why.draw),
    Page("Trial", "trial", ":material/layers:", trial.draw),
    Page(
        "Compare", "compare", ":material/compare_arrows:", compare.draw,
        ready="[data-testid=stMain] [data-testid=stMultiSelect]",
    ),
    Page(
        "Live", "live", ":material/monitoring:", live.draw,
        ready=".st-key-live-board [data-testid=stMetric]",
    ),
    Page(
        "Launch", "launch", ":material/rocket_launch:", launch.draw, bare=True,
        ready="[data-testid=stMain] .st-key-launch button",
    ),
    Page(
        "Export", "export", ":material/save:", export.draw,
        ready="[data-testid=stMain] [data-testid=stTextInput]",
    ),
)  # fmt: skip
