"""Whether a model fits where it is to go: said in one line before anything is drawn or written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from search_space.errors import InputError, require
from search_space.machine import memory_left

FLOAT = 4  # bytes of a weight


def check_disk(folder: Path, needed: float, what: str) -> None:
    """Raise InputError unless the disk of `folder`, or of what will hold it, has room.

    needed: bytes.
    what: takes them, in words.
    """
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(p))
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise InputError(f"cannot look at {place}: {error.strerror}; choose another --to") from None
    require(
        needed <= free,
        f"{what} needs {size(needed)} of disk, and {place} has {size(free)} free; free some, or "
        "choose another --to",
    )


def check_memory(needed: float, what: str) -> None:
    """Raise InputError unless this machine, or our part of it, has so many bytes of memory left.

    what: takes them, in words.
    """
    import psutil

    free = min(psutil.virtual_memory().available, memory_left())
    require(
        needed <= free,
        f"{what} needs {size(needed)} of memory, and this machine has {size(free)} free; take a "
        "smaller backbone, or another machine",
    )


def size(count: float) -> str:
    """Bytes for people: 1.5 GB, 20 MB."""
    for unit, step in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
