"""A tiny study under `nas launch`, and the Ray processes behind it, for those who abuse them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nas.ray_pool import RayPool

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "ran", "off", "to", "find", "old", "fish")
STUDY = {
    "name": "tiny",
    "corpus": {"source": "corpus.txt"},
    "backbone": {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
    "recipe": {"batch_size": 2},
    "warm_start": ["dense", "switch"],
    "workers": {"count": 1, "device": "cpu"},
    "eval_tokens": 512,
}
NAS = [sys.executable, "-c", "from nas.cli import main; main()"]


@dataclass
class Launched:
    """A running `nas launch`: its process, its folder, and its own place for temporary files."""

    process: subprocess.Popen[str]
    folder: Path
    temporary: Path

    def wait_for(self, found: Callable[[], Any], seconds: float, what: str) -> Any:
        """What `found` gives once it is true. RuntimeError when the study ends first."""
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if self.process.poll() is not None:
                raise RuntimeError(f"the study ended before {what}: {self.errors()[-300:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {what} within {seconds:g} s")
            time.sleep(0.02)
        return value

    def ray(self, title: str) -> list[psutil.Process]:
        """The living processes of this study's Ray whose command begins with `title`."""
        sides = [child.pid for child in psutil.Process(self.process.pid).children()]
        return [
            process
            for side in sides
            if (os.getsid(side) == side)
            for process in session(side)
            if command(process).startswith(title)
        ]

    def errors(self) -> str:
        """What it has written to stderr."""
        return (self.folder / "errors").read_text()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the study's database; no rows while there is none."""
        file = self.folder / "nas.db"
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError:  # its tables are being made
                return []

    def end(self) -> None:
        """Kill what is left of it."""
        for process in left_of(self):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)


def command(process: psutil.Process) -> str:
    """The file name of its program, or the title that Ray gave it; "" when it is gone."""
    with contextlib.suppress(psutil.Error):
        line = process.cmdline()
        return Path(line[0]).name if line and not line[0].startswith("ray::") else "".join(line)
    return ""


def session(leader: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and os.getsid(process.pid) == leader:
                found.append(process)
    return found


def wait_for(pool: RayPool, title: str, seconds: float = 60.0) -> psutil.Process:
    """A living process of the pool's Ray whose command begins with `title`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in session(pool._process.pid):
            if command(process).startswith(title):
                return process
        time.sleep(0.02)
    raise RuntimeError(f"no process {title} within {seconds:g} s")


def left_of(launched: Launched) -> list[psutil.Process]:
    """Living processes that have this study's place for temporary files in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get("TMPDIR") == str(launched.temporary):
                found.append(process)
    return found


def write_corpus(file: Path, lines: int = 4000) -> None:
    """A small text of common words."""
    draw = random.Random(1)
    file.write_text("\n".join(" ".join(draw.choice(WORDS) for _ in range(9)) for _ in range(lines)))


def launch(folder: Path, *, lines: int = 4000, **study: Any) -> Launched:
    """Start `nas launch` in the new `folder`, on a corpus of `lines` lines."""
    folder.mkdir(parents=True)
    write_corpus(folder / "corpus.txt", lines)
    (folder / "study.yaml").write_text(json.dumps(STUDY | study))
    temporary = Path(tempfile.mkdtemp(prefix="a-", dir="/tmp"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "NAS_"))}
    environment |= {"FFN_NAS_CACHE": str(folder / "cache"), "TMPDIR": str(temporary)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with open(folder / "errors", "w") as errors, open(folder / "output", "w") as output:
        process = subprocess.Popen(
            [*NAS, "launch", "study.yaml"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    return Launched(process, folder, temporary)


def leftovers(launched: Launched) -> str:
    """What a study that has ended has left running or lying about; "" for nothing."""
    deadline = time.monotonic() + 5
    while (processes := left_of(launched)) and time.monotonic() < deadline:
        time.sleep(0.1)
    wrong = [f"{command(process)} still runs" for process in processes]
    wrong += [f"{path.name} still lies there" for path in launched.temporary.glob("nas-*")]
    return ", ".join(wrong)


def bad_words(text: str) -> str:
    """What no user must see in stderr; "" when it is clean."""
    for word in ("Traceback", "RayTaskError", "ActorDiedError", "Error:\n", ".cc:", "(raylet)"):
        if word in text:
            return f"stderr has {word!r}"
    return ""
