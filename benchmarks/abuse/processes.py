"""Commands of the product as processes of their own, watched from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = "FFN_NAS_ABUSE"
TRACES = ("Traceback", "RayTaskError", "*** SIG", "sqlalchemy.", "[SQL:")


class Command:
    """`nas ARGUMENTS` in `folder`, in a session of its own, with its output in two files.

    Its processes are found by a mark in their environment, wherever they went.
    """

    def __init__(self, folder: Path, *arguments: str, terminal: bool = False, **more: str) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        for name in ("t", "cache"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "FFN_NAS_CACHE": str(folder / "cache"),
            "TMPDIR": str(folder / "t"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            MARK: self.mark,
        }
        command = [sys.executable, "-c", "from nas.command.cli import main; main()", *arguments]
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        self.master = -1
        with contextlib.ExitStack() as files:
            if terminal:
                self.master, slave = os.openpty()
                files.callback(os.close, slave)
                streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
                environment["TERM"] = "xterm"
                # The new session's first terminal becomes the one that controls it.
                command = ["setsid", "--ctty", "--wait", *command]
            else:
                streams = {
                    "stdin": subprocess.DEVNULL,
                    "stdout": files.enter_context(open(self.out, "wb")),
                    "stderr": files.enter_context(open(self.err, "wb")),
                }
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment | more,
                start_new_session=not terminal,
                preexec_fn=hear_every_signal,
                **streams,
            )

    def text(self) -> str:
        """All that it has printed."""
        if self.master >= 0:
            return self._read_terminal()
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def _read_terminal(self) -> str:
        os.set_blocking(self.master, False)
        self._seen: bytes = getattr(self, "_seen", b"")
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self.master, 65536):
                self._seen += data
        return self._seen.decode(errors="replace")

    def wait_for(self, text: str, seconds: float = 120.0) -> bool:
        """Whether it printed `text` before it ended."""
        until(lambda: text in self.text() or self.process.poll() is not None, seconds)
        return text in self.text()

    def listens(self) -> bool:
        """Whether it has a handler for SIGTERM: before that it is an interpreter that starts."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
        return False

    def send(self, number: int) -> None:
        """Send a signal to the command alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def left(self) -> list[str]:
        """Its processes that live, as `PID NAME`."""
        found = []
        needle = f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if needle in (folder / "environ").read_bytes():
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        found.append(f"{folder.name} {(folder / 'comm').read_text().strip()}")
        return found

    def end(self, seconds: float) -> str:
        """Wait for its end, and for that of all its processes; what was wrong, or ""."""
        wrong = ""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            wrong = f"still running after {seconds:.0f} s"
        if not wrong and not until(lambda: not self.left(), 15):
            wrong = f"left processes {self.left()}"
        for entry in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.split()[0]), signal.SIGKILL)
        self.process.wait()
        if self.master >= 0:
            self.text()
        return wrong


def hear_every_signal() -> None:
    """What a nohup around these attempts ignores would be ignored in their commands, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition()` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def trace(text: str) -> str:
    """What of a traceback, of SQL or of C++ is in an output, or ""."""
    found = [mark for mark in TRACES if mark in text]
    return f"printed {found[0]!r}" if found else ""


def last_line(text: str) -> str:
    """The last line that is not blank."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def hidden(folder: Path) -> str:
    """Hidden files and folders that were left in `folder`, or ""."""
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
    # torch keeps its compiler's cache there.
    found = (path.name for path in (folder / "t").iterdir())
    temporary = sorted(name for name in found if not name.startswith("torchinductor"))
    return f"left {left + temporary}" if left or temporary else ""
