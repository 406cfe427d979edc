"""The processes of Ray and PostgreSQL killed or stopped under a study."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from benchmarks.abuse.processes import Command, hidden, last_line, trace
from benchmarks.abuse.ray_machine import await_value, end_politely, folder_of, ray_of, rows, titled
from benchmarks.abuse.studies import at_rest, write_study
from nas.store import StudyState

FULL, SHORT = 12, 1
START_SECONDS = 120.0  # for a study to come to the moment, on a busy machine
RUN_SECONDS = 180.0  # for what is left of a study that survives


@dataclass(frozen=True)
class Kill:
    """One process, one signal, one moment, and what must come of it.

    seconds: from the signal to the end of a study that cannot go on, or to word of a lost worker.
    says: what the one line of stderr, or the warning, must have.
    """

    title: str
    signal: signal.Signals
    moment: str
    seconds: float
    says: str
    survives: bool = False


KILLS = (
    Kill("raylet", signal.SIGKILL, "training", 10, "Ray's raylet was killed by signal 9"),
    Kill("gcs_server", signal.SIGKILL, "training", 10, "Ray's GCS was killed by signal 9"),
    Kill("raylet", signal.SIGKILL, "preparing", 10, "Ray's raylet was killed by signal 9"),
    Kill("gcs_server", signal.SIGKILL, "preparing", 10, "Ray's GCS was killed by signal 9"),
    Kill("ray::TrialActor", signal.SIGKILL, "training", 20, "the worker died", True),
    Kill("ray::TrialActor", signal.SIGSTOP, "training", 90, "no sign of life for 60 s", True),
    Kill("ray::prepare_stream", signal.SIGKILL, "preparing", 20, "prepares the corpus died"),
    Kill("ray::prepare_stream", signal.SIGSTOP, "preparing", 150, "no sign of life for"),
)


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Two thirds of the kills for Ray, one for PostgreSQL where there are enough."""
    postgres = count // 3
    for number in range(count - postgres):
        yield attempt(KILLS[number % len(KILLS)], folder / f"ray-{number}")
    if postgres:
        from benchmarks.abuse import kills_postgres  # needs a server's binaries

        yield from kills_postgres.attempts(postgres, seed, folder / "postgres")


def attempt(kill: Kill, folder: Path) -> str:
    """Launch a study, send the signal at the moment, judge the end; "" when it is right."""
    arguments = ["launch", write_study(folder, 2, 1.5e9)]
    if kill.moment == "preparing":
        corpus = folder / "corpus.txt"
        corpus.write_text(corpus.read_text() * 50)  # enough to be met at it
    study, private = Command(folder, *arguments), folder
    try:
        wait_for_moment(study, kill.moment)
        private = folder_of(study)
        find = partial(titled_of, study, kill.title)
        await_value(study, find, 10, kill.title)[0].send_signal(kill.signal)
        wrong = judge_survivor(study, kill) if kill.survives else judge_end(study, kill)
    except RuntimeError as error:
        wrong = str(error)
    wrong = wrong or trace(study.text()) or hidden(folder)
    wrong = wrong or study.end(10)
    if not wrong and private.exists():
        wrong = f"left {private}"
    end_politely(study)
    return f"{kill.title} {kill.signal.name} while {kill.moment}: {wrong}" if wrong else ""


def titled_of(study: Command, start: str) -> list[psutil.Process]:
    """The processes of a study's Ray whose title begins so."""
    return titled(ray_of(study), start)


def wait_for_moment(study: Command, moment: str) -> None:
    """Until a trial has its first point, or a worker prepares the corpus."""
    if moment == "training":
        found = partial(rows, study, "select 1 from curve_point")
    else:
        found = partial(titled_of, study, "ray::prepare_stream")
    await_value(study, found, START_SECONDS, moment)


def judge_end(study: Command, kill: Kill) -> str:
    """A study that cannot go on ends in time, with one line, exit code 1 and its state."""
    if wrong := study.end(kill.seconds):
        return wrong
    errors = [line for line in study.text().splitlines() if line.startswith("Error: ")]
    if study.process.returncode != 1:
        return f"exit code {study.process.returncode}"
    if len(errors) != 1 or kill.says not in errors[0] or last_line(study.text()) != errors[0]:
        return f"its last lines are {study.text()[-300:]!r}"
    if kill.moment == "preparing":
        return "a study was stored" if rows(study, "select 1 from study") else ""
    if (trials := rows(study, "select status from trial")) != [("stopped",)]:
        return f"its trials are {trials}"
    return at_rest(f"sqlite:///{study.folder}/nas.db", StudyState.FAILED)


def judge_survivor(study: Command, kill: Kill) -> str:
    """A study that lost a worker says so in time, and its trial ends as if it had not."""
    said = partial(lines_with, study, "another worker takes it up")
    told = await_value(study, said, kill.seconds, "word of a lost worker")
    if kill.says not in told[0]:
        return f"it said {told[0]!r}"
    if wrong := study.end(RUN_SECONDS):
        return wrong
    trials = [status for (status,) in rows(study, "select status from trial order by number")]
    if study.process.returncode != 0 or trials != ["finished", "finished"]:
        return f"exit code {study.process.returncode}, its trials are {trials}"
    return at_rest(f"sqlite:///{study.folder}/nas.db", StudyState.FINISHED)


def lines_with(study: Command, text: str) -> list[str]:
    """The lines of its output that have `text`."""
    return [line for line in study.text().splitlines() if text in line]
