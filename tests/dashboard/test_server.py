"""The server beside the page: Plotly's script, that a browser may keep, and the reading ahead."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard import ahead, plotly_script
from dashboard.ahead import Ahead, links
from dashboard.pages import PAGES
from dashboard.plotly_lean import LAZY, READY, lean
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
    assert plain.body.decode() == lean(get_plotlyjs())
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


def test_nobody_hashes_configuration_that_does_not_exist(server, monkeypatch, tmp_path) -> None:
    from streamlit.watcher.polling_path_watcher import PollingPathWatcher

    submitted = []
    monkeypatch.setattr(PollingPathWatcher._executor, "submit", submitted.append)
    monkeypatch.setattr(PollingPathWatcher, "_schedule", PollingPathWatcher._schedule)  # undo
    monkeypatch.setattr(server, "warm", lambda: None)

    def watched() -> int:
        PollingPathWatcher(str(tmp_path / "config.toml"), print, allow_nonexistent=True)
        return len(submitted)

    async def start() -> int:
        async with server.warmed(server.app):
            return watched()

    assert watched() == 1
    assert asyncio.run(start()) == 1


# Of the form that Plotly's script has: modules that pass others on, and a list that asks for each.
SCRIPT = """(
 function(root, factory) {
  root.moduleName = factory();
} (typeof self !== "undefined" ? self : this, () => {
"use strict";var Plotly=(()=>{
var bar=W((e,t)=>{"use strict";t.exports={moduleType:"trace",name:"bar"}});
var b=W((e,t)=>{"use strict";t.exports=bar()});
var pie=W((e,t)=>{t.exports={x:1,moduleType:"trace",name:"pie"}}),
 $p=W((e,t)=>{"use strict";var u=pie();u.plot=q();t.exports=u});
var c=W((e,t)=>{t.exports={moduleType:"component",name:"calendars"}});
var all=W((e,t)=>{R.register([b(),$p(),c()])});return all()
})();
window.Plotly = Plotly;
return Plotly;
}));"""


def test_plotly_is_compiled_at_once_and_makes_few_traces_ready() -> None:
    found = lean(SCRIPT)
    assert 'R.register([b(),c()]),window.ffnNasTraces={"pie":()=>$p()}' in found
    assert "this, (function() {" in found and "Plotly=(function(){" in found
    assert found.endswith("return Plotly;\n})));")
    # Of another form, that part is as it was.
    assert "this, () => {" in lean(SCRIPT.replace("var Plotly=(()=>{", "var Plotly=(a=>{"))
    assert LAZY not in lean(SCRIPT.replace(".register([", ".add(["))
    assert lean("another script") == "another script"


def test_the_installed_plotly_has_that_form() -> None:
    script = lean(get_plotlyjs())
    assert script.count('(function() {\n"use strict";var Plotly=(function(){') == 1
    later = script.partition(f"window.{LAZY}={{")[2].partition("}")[0]
    named = [each.partition(":")[0].strip('"') for each in later.split(",")]
    assert len(named) > 40 and {"scattergl", "pie", "parcoords"} <= set(named)
    assert not set(READY) & set(named)


def test_the_html_names_what_its_page_needs(tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text("<html><head><title>x</title></head><body></body></html>")
    routes = [
        Route("/text", lambda _: PlainTextResponse("</head>")),
        Route("/other.css", lambda _: PlainTextResponse("packed")),
        Route("/{path:path}", lambda _: FileResponse(file)),
    ]
    packing = Middleware(GZipMiddleware, minimum_size=1)  # Streamlit packs all pages but the first
    client = TestClient(Starlette(routes=routes, middleware=[Middleware(Ahead), packing]))
    by_path = {page.path: page for page in PAGES}
    for path, name in (
        ("", "frontier"),
        ("why", "why"),
        ("studies", "studies"),
        ("no", "frontier"),
    ):
        answer = client.get(f"/{path}")
        own = links(by_path[name]).decode()
        assert answer.text == f"<html><head><title>x</title>{own}</head><body></body></html>"
        assert answer.headers["content-length"] == str(len(answer.content))
        assert not {"etag", "last-modified"} & set(answer.headers), "a browser would keep it"
    assert plotly_script.address() in links(by_path["why"]).decode()
    assert plotly_script.address() not in links(by_path["studies"]).decode()
    assert '"DataFrame.' in links(by_path["studies"]).decode()
    assert '"BidiComponent.' in links(by_path["live"]).decode()
    assert client.get("/text").text == "</head>"
    assert client.get("/other.css").headers["content-encoding"] == "gzip"
    assert client.head("/why").headers["content-length"] == str(file.stat().st_size)


def test_every_chunk_that_is_named_is_there() -> None:
    """Else Streamlit has other ones, and the pages wait for them again."""
    named = {*ahead._ALWAYS, *ahead._TABLE, *(each for own in ahead._OWN.values() for each in own)}
    roots, files = ahead.chunks(sorted(named))
    assert [each.partition(".")[0] for each in roots] == sorted(named)
    assert set(ahead._OWN) < {page.path for page in PAGES}
    assert set(roots) < set(files), "and what they import"
    index = (ahead.STATIC / "index.html").read_text(encoding="utf-8")
    assert not [each for each in files if each in index], "Streamlit's own HTML names the others"
    assert ahead.chunks(["NoSuchElement"]) == ([], [])
