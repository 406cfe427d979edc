"""The pages: one file each, with `draw(context)`. `PAGES` lists them in the order of the menu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dashboard.context import Context
from dashboard.pages import frontier, live, trial, why


@dataclass(frozen=True)
class Page:
    """A page of the menu.

    path: its address below the server's; the default page's is the server's own.
    icon: of Material Symbols, as Streamlit names them.
    """

    title: str
    path: str
    icon: str
    draw: Callable[[Context], None]
    default: bool = False


PAGES = (
    Page("Frontier", "frontier", ":material/scatter_plot:", frontier.draw, default=True),
    Page("Why", "why", ":material/lightbulb:", why.draw),
    Page("Trial", "trial", ":material/layers:", trial.draw),
    Page("Live", "live", ":material/monitoring:", live.draw),
)
