"""What this process may use of its machine: a container or a batch system gives it a part.

Control groups, of version 1 and 2, say how much (cgroups(7)). `os.cpu_count`, torch's number of
threads and the machine's free memory know nothing of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")  # the groups of this process, a line each


def usable_cpus() -> int:
    """CPUs that this process may run on and its groups pay for, at least one."""
    return int(max(1, min(_allowed(), *map(_share, _groups("cpu")), math.inf)))


def memory_left() -> float:
    """Bytes that its groups let this process have still, infinite where they set no limit.

    What files fill, and what is given back when somebody asks, counts as left.
    """
    return min(map(_room, _groups("memory")), default=math.inf)


def settle_threads() -> None:
    """Have the libraries of this process start no more threads than it has CPUs.

    They look at the CPUs that it may run on: 64 threads on the time of two are slower than two.
    Before torch is imported; what the user has set stays.
    """
    cpus = usable_cpus()
    if cpus < _allowed():
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus))


def _allowed() -> int:
    """CPUs that this process may run on, whatever its time on them."""
    everywhere = os.cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everywhere


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's groups, and of those that these lie in."""
    for line in _words(OWN, "\n"):
        number, names, path = line.split(":", 2)
        if number == "0":  # version 2, which may stand beside version 1
            base = next(filter(os.path.isdir, (GROUPS / "unified", GROUPS)), GROUPS)
        elif controller in names.split(","):
            base = GROUPS / controller
        else:
            continue
        parts = PurePosixPath(path).parts[1:]
        # In a container the path may be the machine's, of which it sees the last folder as `base`.
        below = () if ".." in parts else parts
        for length in range(len(below) + 1):
            yield base.joinpath(*below[:length])


def _share(group: Path) -> float:
    """CPUs that a group's quota pays for."""
    words = _words(group / "cpu.max") or [
        *_words(group / "cpu.cfs_quota_us"),
        *_words(group / "cpu.cfs_period_us"),
    ]
    quota, period = (*map(_number, words), math.inf, math.inf)[:2]
    return quota / period if 0 < quota < math.inf and period > 0 else math.inf


def _room(group: Path) -> float:
    """Bytes between a group's limit and what it uses."""
    for limit, used, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (most := _words(group / limit)) and (now := _words(group / used)):
            stat = _words(group / "memory.stat")
            files = dict(zip(stat[::2], stat[1::2], strict=False)).get(idle, "0")
            return max(0.0, _number(most[0]) - _number(now[0]) + _number(files))
    return math.inf


def _number(word: str) -> float:
    return math.inf if word == "max" else float(word)


def _words(file: Path, between: str | None = None) -> list[str]:
    """What a file of the kernel's says; nothing where it is not there."""
    try:
        return file.read_text().strip().split(between)
    except OSError:
        return []
