"""PostgreSQL's connections and server ended under a study; a part of the kind `kills`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.abuse.postgres import Server
from benchmarks.abuse.processes import Command, last_line, trace
from benchmarks.abuse.studies import at_rest, write_study
from nas.store import Store, StudyState
from nas.store.outage import RETRY_SECONDS
from search_space.contract import Status

END_SECONDS = RETRY_SECONDS + 60  # that the last attempts, the workers and a busy machine take


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """A line for each attempt, "" for the right outcome."""
    kinds: list[Callable[[Server, Path], str]] = [dropped, back_in_time, gone, gone_at_start]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        with Server() as server:
            wrong = kind(server, folder / f"pg{number}")
        yield f"{kind.__doc__} {wrong}" if wrong else ""


def dropped(server: Server, folder: Path) -> str:
    """Every connection ended, four times in a study."""
    command = launch(server, folder, "[1/")
    for _ in range(4):
        server.drop()
        time.sleep(0.7)
    return finished(command, server)


def back_in_time(server: Server, folder: Path) -> str:
    """The server gone for some seconds in a study."""
    command = launch(server, folder, "[1/")
    server.stop()
    time.sleep(RETRY_SECONDS / 6)
    server.start()
    return finished(command, server)


def gone(server: Server, folder: Path) -> str:
    """The server gone for good in a study."""
    command = launch(server, folder, "[1/")
    server.stop()
    wrong = failed(command, "could not be recorded")
    server.start()
    with Store.open(server.url) as store:
        study = store.study()
        trials = store.trials(study.id)
    if not any(trial.status is Status.FINISHED for trial in trials):
        return wrong or "what ended before is not in the database"
    if not list(folder.glob("nas-runs/*/trial-0/model.safetensors")):
        return wrong or "the weights that were trained are gone"
    return wrong


def gone_at_start(server: Server, folder: Path) -> str:
    """The server gone for good while the workers start."""
    command = launch(server, folder, "starting workers")
    server.stop()
    wrong = failed(command, "has failed for")
    server.start()
    with Store.open(server.url) as store:
        return wrong or ("a study was stored" if store.studies() else "")


def launch(server: Server, folder: Path, moment: str) -> Command:
    """A study on the server that has printed `moment`."""
    arguments = ["launch", write_study(folder, 6, 5e8), "--db", server.url]
    command = Command(folder, *arguments)
    if not command.wait_for(moment):
        command.end(0)
        raise RuntimeError(f"the study never printed {moment!r}: {last_line(command.text())}")
    return command


def finished(command: Command, server: Server) -> str:
    """What is wrong with a study that nothing was to happen to, or ""."""
    wrong = command.end(240)
    if wrong or command.process.returncode:
        return wrong or f"exit code {command.process.returncode}: {last_line(command.text())}"
    return trace(command.text()) or at_rest(server.url, StudyState.FINISHED)


def failed(command: Command, said: str) -> str:
    """What is wrong with the end of a study whose server is gone, or ""."""
    if wrong := command.end(END_SECONDS):
        return wrong
    line, code = last_line(command.text()), command.process.returncode
    if code != 1 or not line.startswith("Error: ") or said not in line:
        return f"exit code {code}: {line}"
    return trace(command.text())
