"""Run a command in this process, under a time limit, and judge how it ended."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nas.command.cli import run
from nas.command.terminal import prepare

LIMIT_S = 5.0  # of work in one run, without the interpreter's start
WAITS = 12.0  # times as long may pass by the clock: other work may have the machine
LINE = 2_000  # characters of an error's line at most: values are shown cut

_CLASS = re.compile(
    r"\b(?:[A-Z]\w+(?:Error|Exception)|SystemExit|KeyboardInterrupt)\b|SELECT |<class"
)


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    code: its exit code, or what it raised, in words.
    seconds: of work.
    """

    code: int | str
    out: str
    err: str
    seconds: float


class Late(BaseException):
    """A run that was not over in time; no `except Exception` keeps it."""


@contextlib.contextmanager
def time_limit(seconds: float = LIMIT_S) -> Iterator[None]:
    """Raise Late in the body when it works longer, or waits far longer. Only of the main thread."""

    def late(number: int, frame: Any) -> None:
        raise Late(f"not over in {seconds:g} s")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, seconds * WAITS),
    }
    previous = {number: signal.signal(number, late) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def in_process(arguments: list[str], seconds: float = LIMIT_S) -> Ended:
    """`nas` with these arguments, its output caught."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    began = time.process_time()
    code: int | str
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        prepare()
        try:
            with time_limit(seconds):
                code = run(arguments)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    took = time.process_time() - began
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Ended(code, said[0], said[1], took)


def wrong(ended: Ended, *, refused_only: bool = False) -> str:
    """What is wrong with how a run ended, "" when nothing is.

    Right is exit code 0 with an output, or 2 with exactly one line on standard error and nothing
    else.

    refused_only: whether 2 alone is right.
    """
    if ended.code == 0 and not refused_only:
        return "" if ended.out.strip() else "exit code 0 without an output"
    if ended.code != 2:
        return f"exit code {ended.code}: {ended.err.strip()[-300:]}"
    if ended.out.strip():
        return f"refused with an output: {ended.out[:200]!r}"
    return wrong_line(ended.err)


def wrong_line(err: str) -> str:
    """What is wrong with the one line that refuses an input, "" when nothing is."""
    lines = err.splitlines()
    if len(lines) != 1 or not lines[0].startswith("Error: "):
        return f"not one line 'Error: ...': {err[:300]!r}"
    return wrong_message(lines[0].removeprefix("Error: "))


def wrong_message(message: str) -> str:
    """What is wrong with the words of a refusal, "" when nothing is."""
    if "\n" in message or "Traceback" in message or not message:
        return f"not one line: {message[:300]!r}"
    if found := _CLASS.search(message):
        return f"speaks of {found.group()!r}: {message[:300]!r}"
    if len(message) > LINE:
        return f"a line of {len(message):,} characters: {message[:200]!r}"
    return ""


def shown_arguments(arguments: list[str]) -> str:
    """A command line for a report, each word cut."""
    return " ".join(ascii(word if len(word) <= 60 else f"{word[:57]}...") for word in arguments)
