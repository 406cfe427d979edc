"""Checks that a machine has passed, kept on disk: each is named by all that it depends on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


def passed(path: Path) -> list[str]:
    """The names that `remember` noted there."""
    try:
        return list(json.loads(path.read_text()))
    except (OSError, ValueError):
        return []


def remember(path: Path, entry: str) -> None:
    """Note that a check was passed; where nothing can be written, a warning says that it will run
    again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sorted({*passed(path), entry}), indent=2) + "\n")
    except OSError as error:
        log.warning("the kernels' check will run again: %s is not writable: %s", path, error)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time checks what `path` remembers: the others wait, and
    find its answer. Where a file system has no locks they check side by side."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open(path.with_suffix(".lock"), "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
