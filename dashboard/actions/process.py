"""Commands that the pages start: each is a process of its own, and its files outlive the server.

An action's folder lies in the cache: `action.json` says what was started, `output.log` has all that
it says, `ended` its exit code once it has ended. Whichever server, page or person looks, now or
after a restart, sees the same.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import dashboard
from dashboard.actions import TOKEN
from nas.process.holder import is_gone, is_here, new_owner
from search_space.errors import InputError, WorkFailed
from search_space.places import DB_VARIABLE, cache_dir
from search_space.secrets import redacted

ACTIONS = "actions"  # the cache's folder
KEPT = 50  # actions of one database; the oldest that have ended go
SHOWN_BYTES = 16_384  # of the end of an output
LOST = -1  # the exit code of a process that ended without saying how
_STARTING = threading.Lock()  # so that two presses do not both find nothing under way
# What would make a command draw bars, as on a terminal.
_COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@dataclass(frozen=True, kw_only=True)
class Action:
    """A `nas` command that was started.

    verb: launch, resume, stop, extend or export.
    study: that it is about.
    arguments: of `nas`, the verb first.
    target: what no second one may work on meanwhile: a folder, or "".
    pid, owner: its process, and the same as `nas.process.holder` says it.
    began: when, in seconds of Unix time.
    """

    folder: Path
    verb: str
    study: str
    arguments: tuple[str, ...]
    target: str
    pid: int
    owner: str
    began: float

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs, LOST where it ended without leaving one, or where it
        runs on another machine and cannot be seen."""
        # In this order: a process that ends between the two looks has left its note.
        gone = is_gone(self.owner) or not is_here(self.owner)
        with suppress(OSError, ValueError):
            return int((self.folder / "ended").read_text(encoding="ascii"))
        return LOST if gone else None

    @property
    def ended(self) -> float | None:
        """When it ended, in seconds of Unix time; None while that is not known."""
        with suppress(OSError):
            return (self.folder / "ended").stat().st_mtime
        return None

    def output(self) -> str:
        """The end of what it has said."""
        try:
            with (self.folder / "output.log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - SHOWN_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"(its output cannot be read: {error.strerror})"
        if size > SHOWN_BYTES:  # not from the middle of a line
            text = "...\n" + text.partition("\n")[2]
        return text.rstrip("\n")

    @property
    def last_line(self) -> str:
        """The last line of its output, which says what went wrong where something did."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        return lines[-1].removeprefix("Error: ") if lines else ""

    def cancel(self) -> None:
        """Have its process stop in order, as Ctrl-C would; nothing where it has ended."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)


class Actions:
    """What was started for one database, from one working directory."""

    def __init__(self, url: str, cwd: Path) -> None:
        """url: as `nas` takes it. cwd: where the commands run, so that their relative paths mean
        what they mean to the server's owner. Raises InputError where there is no cache folder."""
        self.url, self.cwd = url, cwd
        # Without the password: a folder's name is no place even for the digest of one.
        name = sha256(f"{cwd}\n{redacted(url)}".encode()).hexdigest()[:16]
        self.place = cache_dir().absolute() / ACTIONS / name

    def all(self) -> list[Action]:
        """Those that are remembered, the newest first."""
        found = []
        for file in self.place.glob("*/action.json"):
            with suppress(OSError, ValueError, TypeError, KeyError):  # one that is being removed
                found.append(_read(file))
        return sorted(found, key=lambda each: each.began, reverse=True)

    def of_study(self, name: str, *verbs: str) -> list[Action]:
        """The study's, the newest first; of these verbs only, if any are given."""
        mine = [each for each in self.all() if each.study == name]
        return [each for each in mine if not verbs or each.verb in verbs]

    def start(
        self,
        verb: str,
        study: str,
        options: Sequence[str],
        *,
        target: str = "",
        files: Mapping[str, str] | None = None,
    ) -> Action:
        """Start `nas VERB OPTIONS`; it goes on whatever becomes of this process.

        options: `{folder}` in one stands for the action's folder.
        files: name -> text, written into that folder first.
        Raises InputError while the same is under way, WorkFailed where it cannot be started.
        """
        with _STARTING:
            for each in self.of_study(study, verb):
                if each.target == target and each.code is None:
                    raise InputError(
                        f"nas {verb} {study} is under way already, since "
                        f"{time.strftime('%H:%M:%S', time.gmtime(each.began))} UTC; nothing was "
                        "started"
                    )
            self._discard_old()
            try:
                return self._start(verb, study, options, target, files or {})
            except OSError as error:
                raise WorkFailed(
                    f"nas {verb} {study} could not be started: {error.strerror or error}"
                ) from error

    def _start(
        self,
        verb: str,
        study: str,
        options: Sequence[str],
        target: str,
        files: Mapping[str, str],
    ) -> Action:
        folder = self.place / f"{time.time_ns():020d}-{verb}"
        folder.mkdir(parents=True, mode=0o700)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        arguments = (verb, *(option.replace("{folder}", str(folder)) for option in options))
        command = [sys.executable, "-P", "-m", "nas.process.recorded", str(folder / "ended")]
        with (folder / "output.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "nas", *arguments],
                cwd=self.cwd,
                env=_environment(self.url),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # no signal to the server, or to its terminal, is for it
            )
        action = Action(
            folder=folder,
            verb=verb,
            study=study,
            arguments=arguments,
            target=target,
            pid=process.pid,
            owner=new_owner(process.pid),
            began=time.time(),
        )
        plain = asdict(action) | {"folder": str(folder)}
        (folder / "action.json").write_text(json.dumps(plain), encoding="utf-8")
        # While this process lives, somebody must take note of the child's end, or it stays listed.
        threading.Thread(target=process.wait, daemon=True).start()
        return action

    def _discard_old(self) -> None:
        for each in self.all()[KEPT:]:
            if each.code is not None:
                shutil.rmtree(each.folder, ignore_errors=True)


def _read(file: Path) -> Action:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    data["arguments"] = tuple(data["arguments"])
    return Action(**data | {"folder": file.parent})


def _environment(url: str) -> dict[str, str]:
    """The child's: it finds the very `nas` that runs here, and this database."""
    dropped = {TOKEN, *_COLOURS}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    root = str(Path(dashboard.__file__).parents[1])  # nas lies beside it
    path = os.pathsep.join([root, *filter(None, [kept.get("PYTHONPATH")])])
    more = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    return kept | more | {DB_VARIABLE: url}
