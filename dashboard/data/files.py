"""What the pages offer as files, made when somebody asks for one; plain texts, no Streamlit.

Each opens the database for itself: it may read much of it, and no other page should wait meanwhile.
"""

from __future__ import annotations

from nas.store import Store
from nas.views.frontier_rows import frontier_rows, to_csv, to_json
from nas.views.pareto import pareto_data
from nas.views.report import report
from nas.views.svg import figure_svg


def frontier_csv(url: str, name: str) -> str:
    """The frontier's rows, for spreadsheets."""
    with Store.open(url, create=False) as store:
        return to_csv(frontier_rows(store, store.study(name)))


def frontier_json(url: str, name: str) -> str:
    """The same as `nas pareto --json` prints."""
    with Store.open(url, create=False) as store:
        return to_json(frontier_rows(store, store.study(name)))


def frontier_svg(url: str, name: str) -> str:
    """The frontier's figure."""
    with Store.open(url, create=False) as store:
        study = store.study(name)
        figure = pareto_data(study, store.trials(study.id, stats=False))
        return figure_svg(figure, f"{name}: quality against cost")


def report_html(url: str, name: str) -> str:
    """The page that `nas report` writes."""
    with Store.open(url, create=False) as store:
        return report(store, store.study(name))
