"""What ten open pages cost a study that runs: readers without a browser, beside busy cores.

A browser works more than the server does, and readers have theirs elsewhere. So each reader here is
a connection that says what the page in a browser would: it asks for the page, and then for the part
that refreshes itself, each time that is due.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.dashboard_server import cpu_seconds, served, training
from benchmarks.reading_store import NAME, Shape
from benchmarks.report import Row, at_most

PAGES_OPEN, SLOWER = 10, 0.02
PAIRS, SPAN_S = 4, 20.0
_CONTEXT = multiprocessing.get_context("spawn")


def crowd_rows(url: str, shape: Shape, pairs: int = PAIRS, span: float = SPAN_S) -> Iterator[Row]:
    """How much slower a study's work goes beside the readers, measured in pairs."""
    with served(url) as (server, address), training(url, shape):
        ratios, shares = [], []
        for pair in range(pairs):
            # Half of the pairs begin with the readers: what changes with time then cancels.
            done = {}
            for read in (False, True) if pair % 2 else (True, False):
                done[read], share = _worked(address, server.pid, span, read)
                shares += [share] if read else []
            ratios.append(1 - done[True] / done[False])
    shown = ", ".join(f"{100 * ratio:+.1f}%" for ratio in ratios)
    yield Row(f"slower by pair, {PAGES_OPEN} live pages open", shown)
    name = f"server's share of a core, {PAGES_OPEN} live pages open beside busy cores"
    yield Row(name, median(shares), "cores")
    name = f"a study on all {os.cpu_count()} cores beside {PAGES_OPEN} open pages: slower by"
    yield at_most(name, 100 * median(ratios), 100 * SLOWER, "%")


def _worked(address: str, pid: int, span: float, read: bool) -> tuple[float, float]:
    """Rounds of work that as many processes as cores did in `span` seconds, and the share of a core
    that the server of `pid` used meanwhile."""
    cores = os.cpu_count() or 1
    with readers(address, PAGES_OPEN if read else 0), _CONTEXT.Pool(cores) as pool:
        pool.map(work, [0.2] * cores, chunksize=1)  # they have started
        before = cpu_seconds(pid)
        rounds = sum(pool.map(work, [span] * cores, chunksize=1))
        return rounds, (cpu_seconds(pid) - before) / span


def work(span: float) -> int:
    """Rounds of arithmetic in `span` seconds of the clock: a worker that trains."""
    end, rounds = time.monotonic() + span, 0
    while time.monotonic() < end:
        sum(range(20_000))
        rounds += 1
    return rounds


@contextmanager
def readers(address: str, count: int) -> Iterator[None]:
    """So many open live pages, in a process of their own."""
    if count == 0:
        yield
        return
    opened = _CONTEXT.Event()
    process = _CONTEXT.Process(target=_read_all, args=(address, count, opened), daemon=True)
    process.start()
    try:
        if not opened.wait(60):
            raise RuntimeError("the pages did not open within a minute")
        yield
    finally:
        process.terminate()
        process.join()


def _read_all(address: str, count: int, opened: Any) -> None:
    async def all_of_them() -> None:
        ready: list[asyncio.Event] = [asyncio.Event() for _ in range(count)]
        tasks = [asyncio.create_task(_read(address, each)) for each in ready]
        await asyncio.gather(*(each.wait() for each in ready))
        opened.set()
        await asyncio.gather(*tasks)

    os.nice(19)  # it stands for other machines
    asyncio.run(all_of_them())


async def _read(address: str, ready: asyncio.Event) -> None:
    """One reader of the live page."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect

    page = ""  # its hash, which the server says

    def asked(fragment: str = "") -> bytes:
        message = BackMsg()
        message.rerun_script.query_string = f"study={NAME}"
        message.rerun_script.page_name = "" if page else "live"
        message.rerun_script.page_script_hash = page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        return bytes(message.SerializeToString())

    stream = address.replace("http", "ws", 1) + "/_stcore/stream"
    async with connect(stream, subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
        await socket.send(asked())
        timers: dict[str, asyncio.Task[None]] = {}

        async def again(fragment: str, every: float) -> None:
            while True:
                await asyncio.sleep(every)
                await socket.send(asked(fragment))

        async for data in socket:
            message = ForwardMsg()
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            kind = message.WhichOneof("type")
            if kind == "new_session" and not message.metadata.run.fragment_ids:
                for timer in timers.values():  # the whole page comes anew, and says its own
                    timer.cancel()
                timers.clear()
            if kind == "navigation":
                page = message.navigation.page_script_hash
            if kind == "auto_rerun":
                part = message.auto_rerun
                if part.fragment_id in timers:
                    timers[part.fragment_id].cancel()
                task = asyncio.create_task(again(part.fragment_id, part.interval))
                timers[part.fragment_id] = task
            if kind == "script_finished" and timers:
                ready.set()
