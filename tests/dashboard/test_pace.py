"""How often pages look: less often the more are open, said on the page, and told to browsers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from browser_tools import served
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

import dashboard
from dashboard import pace
from dashboard.data.source import Source
from dashboard.pace import FEW, LONGEST_S, REFRESH_S, Pace, refresh
from nas.store import Store, StudyState

APP = Path(dashboard.__file__).parent / "start" / "page.py"


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_twice_as_many_pages_look_half_as_often() -> None:
    assert refresh(0) == refresh(1) == refresh(FEW) == REFRESH_S
    assert refresh(FEW + 1) == refresh(2 * FEW) == 2 * REFRESH_S
    assert refresh(2 * FEW + 1) == refresh(3 * FEW) == 3 * REFRESH_S
    assert refresh(1000) == LONGEST_S


def test_a_page_counts_until_it_has_not_looked_for_a_while() -> None:
    clock = Clock()
    found = Pace(clock)
    for page in range(FEW):
        assert found.look(str(page)) == REFRESH_S
    assert found.look("0") == REFRESH_S, "a page that looks again is no further page"
    assert found.every == REFRESH_S
    assert found.look("one more") == found.look("0") == 2 * REFRESH_S == found.every
    clock.now = 2 * REFRESH_S
    for page in range(FEW):
        found.look(str(page))
    assert found.every == 2 * REFRESH_S, "one may miss a look"
    clock.now = 6 * REFRESH_S
    assert found.look("0") == REFRESH_S == found.every, "the others are closed"


@pytest.mark.slow
def test_the_page_says_that_many_are_open(url: str, fill, monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(pace, "_pace", Pace(clock))
    monkeypatch.setenv("NAS_DB", url)
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    said = "Many pages are open: those that follow a study look for news every 6 s, not every 3 s."
    page = AppTest.from_file(str(APP), default_timeout=WAIT_S).run()
    assert said not in [each.value for each in page.sidebar.caption]
    for other in range(FEW):
        pace._pace.look(f"other {other}")
    page.run()
    assert not page.exception
    assert said in [each.value for each in page.sidebar.caption]
    clock.now = 60.0
    page.run()
    assert said not in [each.value for each in page.sidebar.caption]


def test_what_is_live_may_be_older_where_each_looks_less_often(url: str, fill, monkeypatch) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    source, clock = Source(url), Clock()
    monkeypatch.setattr("dashboard.data.source.time.monotonic", clock)
    first = source.live("demo")
    clock.now = 1.5
    assert source.live("demo", 2.0) is first
    assert source.live("demo") is not first


@pytest.mark.slow
def test_a_browser_is_told_a_new_pace_by_its_next_look(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
    with served(url) as address:
        asyncio.run(_crowd(address))


async def _crowd(address: str) -> None:
    """One page more than few: the last one and, once it has looked again, the first."""
    from websockets.asyncio.client import connect

    stream = address.replace("http", "ws", 1) + "/_stcore/stream"
    async with AsyncExitStack() as stack:
        sockets = [
            # What nobody reads must not keep the answer to a goodbye back.
            await stack.enter_async_context(
                connect(stream, subprotocols=["streamlit"], max_queue=None)
            )
            for _ in range(FEW + 1)
        ]
        answers = [await _asked(each, page_name="live") for each in sockets]
        told = [answer["auto_rerun"].interval for answer in answers]
        assert told == FEW * [REFRESH_S] + [2 * REFRESH_S]
        page = answers[0]["navigation"].page_script_hash
        look = {"fragment_id": answers[0]["auto_rerun"].fragment_id, "is_auto_rerun": True}
        again = await _asked(sockets[0], page_script_hash=page, **look)
        assert again["navigation"].page_script_hash == page, "the whole page was drawn again"
        assert again["auto_rerun"].fragment_id == look["fragment_id"]
        assert again["auto_rerun"].interval == 2 * REFRESH_S


async def _asked(socket, **what) -> dict:
    """Ask for a page, or for a part of it, as a browser would; returns the server's messages by
    kind, up to the one that says what refreshes itself."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    asked = BackMsg(rerun_script={"query_string": "study=demo", **what})
    await socket.send(asked.SerializeToString())
    found = {}
    async with asyncio.timeout(WAIT_S):
        while "auto_rerun" not in found:
            message = ForwardMsg.FromString(await socket.recv())
            kind = message.WhichOneof("type")
            found[kind] = getattr(message, kind)
    return found
