"""The processes of Ray and PostgreSQL killed or stopped under a study."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.abuse.ray_machine import Launched, bad_words, launch, leftovers

FULL, SHORT = 12, 1
START_SECONDS = 120.0  # for a study to come to the moment, on a busy machine
RUN_SECONDS = 180.0  # for what is left of a study that survives


@dataclass(frozen=True)
class Kill:
    """One process, one signal, one moment, and what must come of it.

    seconds: from the signal to the end of a study that cannot go on, or to the end of the trial.
    says: what the one line of stderr, or the trial's error, must have.
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
    postgres = count // 3 if importlib.util.find_spec("benchmarks.abuse.kills_postgres") else 0
    for number in range(count - postgres):
        yield attempt(KILLS[number % len(KILLS)], folder / f"ray-{number}")
    if postgres:
        module = importlib.import_module("benchmarks.abuse.kills_postgres")
        yield from module.attempts(postgres, seed, folder / "postgres")


def attempt(kill: Kill, folder: Path) -> str:
    """Launch a study, send the signal at the moment, judge the end; "" when it is right."""
    lines = 4000 if kill.moment == "training" else 200_000
    study = launch(folder, lines=lines, budget={"trials": 2, "trial_flops": 1.5e9})
    name = f"{kill.title} {kill.signal.name} while {kill.moment}"
    try:
        wait_for_moment(study, kill.moment)
        victim = study.wait_for(lambda: study.ray(kill.title), 10, kill.title)[0]
        victim.send_signal(kill.signal)
        wrong = judge_survivor(study, kill) if kill.survives else judge_end(study, kill)
        wrong = wrong or bad_words(study.errors()) or leftovers(study)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        wrong = str(error)
    finally:
        study.end()
    return f"{name}: {wrong}" if wrong else ""


def wait_for_moment(study: Launched, moment: str) -> None:
    """Until a trial has its first point, or a worker prepares the corpus."""
    if moment == "training":
        study.wait_for(lambda: study.rows("select 1 from curve_point"), START_SECONDS, moment)
    else:
        study.wait_for(lambda: study.ray("ray::prepare_stream"), START_SECONDS, moment)


def judge_end(study: Launched, kill: Kill) -> str:
    """A study that cannot go on ends in time, with one line, exit code 1 and its state."""
    code = study.process.wait(kill.seconds)
    errors = [line for line in study.errors().splitlines() if line.startswith("Error: ")]
    if code != 1:
        return f"exit code {code}"
    if len(errors) != 1 or kill.says not in errors[0]:
        return f"the error is {study.errors()[-300:]!r}"
    states = study.rows("select state from study")
    if kill.moment == "preparing":
        return f"an unborn study is {states}" if states else ""
    trials = study.rows("select status from trial")
    if states != [("failed",)] or trials != [("stopped",)]:
        return f"the study is {states}, its trials {trials}"
    return ""


def judge_survivor(study: Launched, kill: Kill) -> str:
    """A study that lost a worker records its trial in time and goes on to its end."""
    began = time.monotonic()
    ended = "select status, error from trial join result on result.trial_id = trial.id"
    first = study.wait_for(lambda: study.rows(ended), kill.seconds + 30, "end of the trial")[0]
    if (took := time.monotonic() - began) > kill.seconds:
        return f"the trial ended after {took:.0f} s"
    if first[0] != "failed" or kill.says not in first[1]:
        return f"the trial ended as {first}"
    code = study.process.wait(RUN_SECONDS)
    states = study.rows("select state from study")
    trials = [status for (status,) in study.rows("select status from trial order by number")]
    if code != 0 or states != [("finished",)] or trials != ["failed", "finished"]:
        return f"exit code {code}, the study is {states}, its trials {trials}"
    return ""
