"""The process that holds Ray, seen from the pool: started, asked over a pipe, ended whole.

Ray writes to stderr, takes signal handlers, waits without end and calls exit from C++. In a
process of its own it can do none of that to us, and whatever state it is in, it can be ended.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from nas.process import interrupts
from nas.running.pool import PoolLost
from nas.running.ray_folder import private_folder, usable_tmpdir
from search_space.errors import InputError, WorkFailed

log = logging.getLogger(__name__)
ERRORS = {"input": InputError, "failed": WorkFailed, "lost": PoolLost}
END_SECONDS = 10.0  # for killed processes to vanish


class NoAnswer(PoolLost):
    """The process that holds Ray lives and does not answer."""


class RayProcess:
    """One process, for a Ray of its own (`local`) or as a guest of a cluster.

    Every question is answered or ends in PoolLost: within seconds when a process of ours dies,
    else after the time that the question has.
    """

    def __init__(self, *, local: bool, leave: float) -> None:
        self._local, self._leave = local, leave
        self._asking = self._mute = False
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe, theirs = multiprocessing.Pipe()
        self.folder = private_folder()
        try:
            with theirs, open(self.folder / "log", "wb") as output:
                command = [sys.executable, "-P", "-m", "nas.running.ray_side"]
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(self.folder)],
                    env=environment(self.folder, local),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a terminal's signals are for the driver alone
                )
        except BaseException as error:
            self.end()
            if isinstance(error, OSError):
                raise WorkFailed(f"no process could be started for Ray: {error}") from error
            raise

    @property
    def pid(self) -> int:
        """The process, which leads the session of all that a local Ray runs."""
        assert self._process is not None
        return self._process.pid

    def ask(
        self, name: str, *args: Any, within: float, beat: Callable[[], None] = lambda: None
    ) -> Any:
        """What `nas.running.ray_side` answers to `name`; no two signs of it
        are more than `within` seconds apart.

        beat: called at each sign of life that comes before the answer.
        Raises InputError and WorkFailed as the other side says, NoAnswer, PoolLost.
        """
        if self._asking:
            raise PoolLost("the workers are lost: a question to them was interrupted")
        self._asking = True
        # When the other side is gone, what it last said is still in the pipe.
        with contextlib.suppress(OSError):
            self._pipe.send((name, args))
        kind, value = self._receive(within)
        while kind == "beat":
            beat()
            kind, value = self._receive(within)
        self._asking = kind == "lost"
        if kind in ERRORS:
            raise ERRORS[kind](value)
        return value

    def _receive(self, within: float) -> tuple[str, Any]:
        try:
            with interrupts.breakable():  # the wait alone: an answer is read whole
                answered = self._pipe.poll(within)
            if not answered:
                self._mute = True
                raise NoAnswer(
                    f"the workers are lost: the process that holds Ray gave no answer for "
                    f"{within:g} s"
                )
            message: tuple[str, Any] = self._pipe.recv()
        except (EOFError, OSError) as error:
            log.debug("what Ray said last:\n%s", _tail(self.folder / "log"))
            raise PoolLost(
                f"the workers are lost: the process that holds Ray {self._how_it_ended()}"
            ) from error
        return message

    def _how_it_ended(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            # Not reaped: while it is not, its id names its session and no other.
            options = os.WEXITED | os.WNOWAIT | os.WNOHANG
            if found := os.waitid(os.P_PID, self._process.pid, options):
                code = found.si_status
                return ended(-code if found.si_code != os.CLD_EXITED else code)
            time.sleep(0.02)
        return "hung up"

    def end(self) -> None:
        """End every process that was started here and remove the folder. May be called twice."""
        process, self._process = self._process, None
        self._asking = True
        try:
            self._pipe.close()
            if process is not None and not self._local and not self._mute:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self._leave)  # a guest says goodbye: its actors end with it
        finally:
            try:
                if process is not None:
                    end_session(process.pid)
                    process.wait(END_SECONDS)
            finally:
                remove(self.folder)


def environment(folder: Path, local: bool) -> dict[str, str]:
    """The environment of the process that holds Ray and, for a local one, of Ray's own.

    A local Ray takes none of the user's RAY_ settings, which are for clusters; it gets the token
    in `folder` and listens on loopback alone. A cluster's settings and token are the user's.
    """
    variables = dict(os.environ)
    root = str(Path(__file__).parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        variables["PYTHONPATH"] = os.pathsep.join(
            [root, *filter(None, [variables.get("PYTHONPATH")])]
        )
    if not usable_tmpdir():
        variables["TMPDIR"] = str(folder.parent)
    if not local:
        variables.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        variables.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")  # one a second; Ray's own is 20
        if variables.get("RAY_AUTH_TOKEN") or variables.get("RAY_AUTH_TOKEN_PATH"):
            # Whoever gives a token wants it used; without a mode Ray leaves it aside.
            variables.setdefault("RAY_AUTH_MODE", "token")
        return variables
    variables = {key: value for key, value in variables.items() if not key.startswith("RAY_")}
    return variables | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: listen on loopback alone
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run nas` is run again in every worker
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def end_session(leader: int) -> None:
    """SIGKILL all processes of the session of `leader` but this one; WorkFailed if some stay.

    Ray's workers have process groups of their own, and a stopped one outlives its raylet.
    """
    deadline = time.monotonic() + END_SECONDS
    while left := _session(leader):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise WorkFailed(f"processes of Ray could not be ended: {', '.join(map(str, left))}")
        time.sleep(0.02)


def _session(leader: int) -> list[int]:
    """The living processes of a session, this one left out."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            mine = os.getsid(pid) == leader and pid != os.getpid()
            if mine and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def remove(folder: Path) -> None:
    """Remove the private folder; a warning says what stays."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("Ray's folder could not be removed: %s", folder)


def ended(code: int) -> str:
    """How a process ended, from its return code."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _tail(file: Path) -> str:
    try:
        return file.read_text(errors="replace")[-4000:]
    except OSError as error:
        return str(error)
