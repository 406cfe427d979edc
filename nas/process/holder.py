"""Who holds a study: this process in words, and whether another that held one is gone.

A holder on the same machine is known to be gone when its process is; one elsewhere is waited for
until its lease runs out.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from contextlib import suppress
from pathlib import Path

_OWNER = re.compile(
    r"process (?P<pid>\d+) \(since tick (?P<tick>\d+)\) on (?P<machine>.+), [0-9a-f]+"
)


def new_owner(pid: int | None = None) -> str:
    """A process of this machine as a holder, this one without a `pid`; no two calls, anywhere, have
    the same answer."""
    pid = os.getpid() if pid is None else pid
    return f"process {pid} (since tick {_tick(pid)}) on {_machine()}, {uuid.uuid4().hex[:8]}"


def is_gone(owner: str) -> bool:
    """Whether the holder was a process of this machine that does not live any more."""
    found = _OWNER.fullmatch(owner)
    if found is None or found["machine"] != _machine() or found["tick"] == "0":
        return False
    pid = int(found["pid"])
    tick = _tick(pid)
    return tick != int(found["tick"]) if tick else not _hidden(pid)


def is_here(owner: str) -> bool:
    """Whether the holder is, or was, a process of this machine on this boot."""
    found = _OWNER.fullmatch(owner)
    return found is not None and found["machine"] == _machine()


def words(owner: str) -> str:
    """The holder for people: which process, on which machine."""
    found = _OWNER.fullmatch(owner)
    return f"process {found['pid']} on {found['machine'].partition(':')[0]}" if found else owner


def _machine() -> str:
    """The machine's name, the number of its processes' namespace, and what is this boot's alone.

    Two machines can have one name, and two containers the same process ids. The first namespace has
    the same number everywhere.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):  # what a sandbox does not show is left out
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text()[:8])
    return ":".join(parts)


def _tick(pid: int) -> int:
    """When the process started, in the kernel's ticks; 0 where it is not there or not known.

    A process id is used again, and a start is not.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The name in brackets may hold anything, spaces and brackets too. A zombie has ended.
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def _hidden(pid: int) -> bool:
    """Whether there is such a process of another user, which /proc need not show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
