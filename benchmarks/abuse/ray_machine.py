"""The processes of a study's Ray, found from outside, for those who abuse them."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.abuse.processes import Command, last_line
from nas.running.ray_pool import RayPool


def session(leader: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and os.getsid(process.pid) == leader:
                found.append(process)
    return found


def title(process: psutil.Process) -> str:
    """The file name of its program, or the title that Ray gave it; "" when it is gone."""
    with contextlib.suppress(psutil.Error):
        line = process.cmdline()
        return Path(line[0]).name if line and not line[0].startswith("ray::") else "".join(line)
    return ""


def titled(processes: Iterable[psutil.Process], start: str) -> list[psutil.Process]:
    """Those whose title begins so."""
    return [process for process in processes if title(process).startswith(start)]


def wait_for(pool: RayPool, start: str, seconds: float = 60.0) -> psutil.Process:
    """A living process of the pool's Ray whose title begins so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in titled(session(pool._process.pid), start):
            return process
        time.sleep(0.02)
    raise RuntimeError(f"no process {start} within {seconds:g} s")


def sides_of(command: Command) -> list[psutil.Process]:
    """The processes of a `nas launch` that hold Ray: one, once it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(command.process.pid).children()
        return [child for child in children if "nas.running.ray_side" in child.cmdline()]
    return []


def folder_of(command: Command) -> Path:
    """The private folder of the Ray of a `nas launch` that has one."""
    return Path(sides_of(command)[0].cmdline()[-1])


def ray_of(command: Command) -> list[psutil.Process]:
    """The living processes of the local Ray of a `nas launch`."""
    return [process for side in sides_of(command) for process in session(side.pid)]


def rows(command: Command, query: str) -> list[tuple[Any, ...]]:
    """Read a study's nas.db; no rows while there is none."""
    file = command.folder / "nas.db"
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        try:
            return database.execute(query).fetchall()
        except sqlite3.OperationalError:  # its tables are being made
            return []


def await_value(command: Command, found: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `found` gives once it is true. RuntimeError when it is late or the command ends."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if command.process.poll() is not None:
            raise RuntimeError(f"it ended before {what}: {last_line(command.text())}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {what} within {seconds:g} s")
        time.sleep(0.02)
    return value


def end_politely(command: Command) -> str:
    """End a study that may still run, so that it clears its folders; what was wrong, or ""."""
    command.send(signal.SIGINT)
    return command.end(60)
