"""The dashboard's server: `nas dashboard`, or `streamlit run dashboard/server.py`.

It serves the page of `app.py`, and beside it Plotly's script, which the browser then keeps. Its
HTML names what a page will need (`ahead`). While a first browser starts, it reads the newest study.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from streamlit.watcher.polling_path_watcher import PollingPathWatcher

import dashboard.pages  # noqa: F401  so that the first visit need not import them
from dashboard import plotly_script
from dashboard.ahead import Ahead
from dashboard.data.source import source_of
from search_space.errors import InputError, WorkFailed
from search_space.places import DB_VARIABLE, DEFAULT_DB

log = logging.getLogger(__name__)


async def plotly(request: Request) -> Response:
    """Plotly's script, packed where the browser takes that."""
    headers = {
        "Cache-Control": f"public, immutable, max-age={plotly_script.YEAR_S}",
        "Vary": "Accept-Encoding",
    }
    takes = request.headers.get("Accept-Encoding", "")
    if "gzip" in takes:
        headers["Content-Encoding"] = "gzip"
        body = await asyncio.to_thread(plotly_script.packed)  # which may still be under way
    else:
        body = (await asyncio.to_thread(plotly_script.script)).encode()
    return Response(body, media_type="text/javascript", headers=headers)


@asynccontextmanager
async def warmed(_app: st.App) -> AsyncIterator[None]:
    """Begin to read when the server starts: a browser takes a second to ask for its first page."""
    _watch_no_configuration()
    for target in (plotly_script.packed, warm):  # the first lets the other go on as it packs
        threading.Thread(target=target, daemon=True, name=target.__name__).start()
    yield


def _watch_no_configuration() -> None:
    """Streamlit opens and hashes its configuration's files five times a second, also those that do
    not exist: 0.02 of a core, a third of what ten open pages cost. No option turns that off."""
    PollingPathWatcher._schedule = lambda _watcher: None  # type: ignore[assignment]


def warm() -> None:
    """Read the newest study. What fails here fails on a page, in words."""
    with _giving_way():
        _read_ahead()
    # Streamlit looks for garbage after each run, among all that was ever made: 0.1 s of a core at
    # every refresh of every page. What is here now stays, and is not looked at again.
    gc.freeze()


@contextmanager
def _giving_way() -> Iterator[None]:
    """Let the server's answers wait less for this thread.

    A thread that works holds the interpreter for the whole of this interval while others want it.
    The first browser asks for a hundred files, each of which changes threads some times.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def _read_ahead() -> None:
    """The newest study."""
    source = source_of(os.environ.get(DB_VARIABLE, DEFAULT_DB))
    try:
        for study in source.studies()[:1]:
            source.reading(study.name)
    except (InputError, WorkFailed) as error:
        log.info("not read yet: %s", error)


plotly_script.served = True
app = st.App(
    Path(__file__).parent / "start" / "page.py",
    routes=[Route(plotly_script.address(), plotly)],
    middleware=[Middleware(Ahead)],
    lifespan=warmed,
)
