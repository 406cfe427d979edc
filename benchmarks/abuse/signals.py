"""Signals at named and random moments of every command that takes a while."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.abuse.processes import Command, hidden, last_line, trace, until
from benchmarks.abuse.studies import at_rest, write_study
from nas.store import StudyState

FULL, SHORT = 40, 3
END_SECONDS = 90.0  # from the signal to the end; the product promises 60 for its clean-up
INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
STOP = "Error: stopped"


@dataclass(frozen=True)
class Attempt:
    """Signals for a command.

    moment: what it prints first, or seconds since it hears signals.
    key: what its terminal does in place of signals.
    """

    command: str
    moment: str | float
    signals: tuple[int, ...] = ()
    key: str = ""

    def __str__(self) -> str:
        names = "+".join(signal.Signals(number).name for number in self.signals) or self.key
        return f"{names} at {self.moment!r} of {self.command}"


PHASES = ("starting workers", "preparing the corpus", "interpolated", "[1/", "trials finished")


def plan(draw: random.Random) -> list[Attempt]:
    """The attempts of `FULL`, those of `SHORT` first."""
    first = [
        Attempt("launch", "[1/", (TERM,)),
        Attempt("launch", "starting workers", (HUP, TERM)),
        Attempt("doctor", draw.uniform(0, 3), (INT,)),
    ]
    named = [Attempt("launch", phase, (n,)) for phase in PHASES for n in (INT, TERM, HUP)]
    named.remove(first[0])
    several = [(INT, INT), (TERM, TERM, TERM), (HUP, INT, TERM)]
    several_at = ("[1/", "starting workers", "interpolated")
    named += [Attempt("launch", at, n) for at, n in zip(several_at, several, strict=True)]
    moments = [draw.uniform(0, 12) for _ in range(3)]
    named += [Attempt("launch", at, (draw.choice((INT, TERM, HUP)),)) for at in moments]
    named += [Attempt("launch", "running", key=key) for key in ("Ctrl-C", "closed terminal")]
    named += [Attempt("launch", "preparing", key="Ctrl-C")]
    exports = [Attempt("export", draw.uniform(0, 9), (n,)) for n in (INT, TERM, HUP, TERM)]
    exports += [Attempt("export", draw.uniform(2, 9), (TERM, INT, HUP))]
    served = [Attempt("dashboard", "URL", (n,)) for n in (INT, TERM, HUP, KILL)]
    quick = [Attempt("generate", draw.uniform(0, 4), (TERM,))]
    quick += [Attempt("pareto", draw.uniform(0, 1), (n,)) for n in (INT, TERM)]
    quick += [Attempt("doctor", draw.uniform(0, 12), (n,)) for n in (TERM, HUP)]
    return first + named + exports + served + quick


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """A line for each attempt, "" for the right outcome."""
    draw = random.Random(seed)
    chosen = plan(draw)[:count]
    done = folder / "done"
    if any(attempt.command in ("export", "dashboard", "generate", "pareto") for attempt in chosen):
        finish_a_study(done)
    for number, attempt in enumerate(chosen):
        own = done if attempt.command not in ("launch", "doctor") else folder / f"a{number}"
        wrong = make(attempt, own, draw)
        yield f"{attempt}: {wrong}" if wrong else ""


def finish_a_study(folder: Path) -> None:
    """A finished study and an export of it, for the commands that read them."""
    for arguments in (["launch", write_study(folder, 2)], ["export", "--to", "model"]):
        command = Command(folder, *arguments)
        if wrong := command.end(300):
            raise RuntimeError(f"{arguments}: {wrong}")
        if command.process.returncode:
            raise RuntimeError(f"{arguments}: {command.text()}")


def make(attempt: Attempt, folder: Path, draw: random.Random) -> str:
    """Make one attempt in `folder`; what was wrong, or ""."""
    arguments = {
        "launch": lambda: ["launch", write_study(folder, *size(attempt))],
        "export": lambda: ["export", "--to", "drafted"],
        "dashboard": lambda: ["dashboard", "--port", str(free_port())],
        "generate": lambda: ["generate", "model", "--tokens", "20"],
        "pareto": lambda: ["pareto", "--html", "figure.html"],
        "doctor": lambda: ["doctor"],
    }[attempt.command]()
    command = Command(folder, *arguments, terminal=bool(attempt.key))
    if isinstance(attempt.moment, float):
        until(lambda: command.listens() or command.process.poll() is not None, 60)
        until(lambda: command.process.poll() is not None, attempt.moment)
    elif not command.wait_for(attempt.moment):
        return command.end(1) or f"never printed {attempt.moment!r}: {last_line(command.text())}"
    else:
        time.sleep(draw.uniform(0, 0.3))
    press(command, attempt)
    try:
        return command.end(END_SECONDS) or judge(attempt, command, folder)
    finally:
        if command.master >= 0:
            os.close(command.master)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def size(attempt: Attempt) -> tuple[int, float, int]:
    """Trials, their FLOPs and the corpus's lines: little for what comes after, much before."""
    trials, flops = (1, 3e7) if attempt.moment == "trials finished" else (50, 2e9)
    return trials, flops, 100_000 if "preparing" in str(attempt.moment) else 4000


def press(command: Command, attempt: Attempt) -> None:
    """Do what the attempt says."""
    if attempt.key == "Ctrl-C":
        os.write(command.master, b"\x03")
    elif attempt.key:
        command.text()
        os.close(command.master)
        command.master = -1
    for number in attempt.signals:
        command.send(number)
        time.sleep(0.1)


def judge(attempt: Attempt, command: Command, folder: Path) -> str:
    """What of the outcome is wrong, or ""."""
    code, text = command.process.returncode, ""
    closed = attempt.key == "closed terminal"
    if not closed:
        text = command.text()
    if attempt.command == "dashboard":
        right = (0, -KILL) if KILL in attempt.signals else (0,)
    else:
        right = (0, 130)
    if code not in right:
        return f"exit code {code}: {last_line(text)}"
    if wrong := trace(text):
        return wrong
    if code == 130 and not closed and not last_line(text).startswith(STOP):
        return f"its last line is {last_line(text)!r}"
    states = (StudyState.STOPPED,) if code == 130 and attempt.moment != "trials finished" else ()
    if attempt.command == "launch" and (wrong := at_rest(f"sqlite:///{folder}/nas.db", *states)):
        return wrong
    return hidden(folder) or half_written(folder, code)


def half_written(folder: Path, code: int) -> str:
    """What an interrupted export left, or ""."""
    target = folder / "drafted"
    if not target.exists():
        return ""
    whole = (target / "model.safetensors").exists() and (target / "README.md").exists()
    with contextlib.suppress(OSError):
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
    return "" if code == 0 and whole else "left a folder that should not be there"
