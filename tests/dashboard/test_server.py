"""The server beside the page: Plotly's script, that a browser may keep, and the reading ahead."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from starlette.requests import Request

from dashboard import plotly_script
from nas.store import Store, StudyState

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """The module, whose import says that the script is served."""
    monkeypatch.setattr(plotly_script, "served", False)
    from dashboard import server

    return server


def test_the_script_is_packed_and_may_be_kept(server) -> None:
    def asked(accepts: str):
        headers = [(b"accept-encoding", accepts.encode())]
        return asyncio.run(server.plotly(Request({"type": "http", "headers": headers})))

    plain, packed = asked("br"), asked("gzip, br")
    assert b"plotly.js" in plain.body[:200]
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < 1.6e6 and packed.headers["content-encoding"] == "gzip"
    for each in (plain, packed):
        assert each.headers["cache-control"] == "public, immutable, max-age=31536000"
        assert each.headers["content-type"].startswith("text/javascript")
    assert [route.path for route in server.app._user_routes] == [plotly_script.address()]
    assert Path(server.app.script_path).is_file()
    assert not (Path(server.app.script_path).parent / "pages").exists(), "Streamlit would run them"


def test_it_reads_ahead_and_a_database_that_is_not_there_stops_nothing(
    server, url: str, fill, monkeypatch, tmp_path
) -> None:
    from dashboard.data.follower import Follower
    from dashboard.data.source import source_of

    monkeypatch.setattr(server.gc, "freeze", lambda: None)  # the tests' own garbage stays garbage
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    monkeypatch.setenv("NAS_DB", url)
    server.warm()
    monkeypatch.setattr(Follower, "_begin", None)
    assert len(source_of(url).reading("demo").trials) == 5, "it was read"
    monkeypatch.setenv("NAS_DB", f"sqlite:///{tmp_path}/none.db")
    server.warm()
