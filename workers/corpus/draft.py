"""Drafts: a corpus is written beside its place and takes its name when it is whole.

A draft's writer holds a lock on a file in it for as long as it lives, so that a draft without a
writer is told from one that is being written, whatever process asks, and can be swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

_LOCK = "writer.lock"
_DRAFT = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]{8}(?P<old>\.old)?")

# A draft without its lock is about to be one or about to get its name.
_YOUNG_SECONDS = 3600
# A shared folder may not pass locks on between machines.
_FOREIGN_SECONDS = 24 * 3600


@contextlib.contextmanager
def draft(folder: Path, whole: Callable[[Path], bool]) -> Iterator[Path]:
    """An empty folder beside `folder`, which gets its name at the end; removed on any failure.

    A damaged `folder` is replaced; one that is `whole` by then stays, for it holds the same.
    Raises OSError where the file system does.
    """
    sweep(folder.parent)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        with open(partial / _LOCK, "w", encoding="utf-8") as lock:
            with contextlib.suppress(OSError):  # A file system without locks is never swept.
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(socket.gethostname())
            lock.flush()
            yield partial
            os.unlink(partial / _LOCK)
            _rename(partial, folder, whole)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path, whole: Callable[[Path], bool]) -> None:
    try:
        os.rename(partial, folder)
        return
    except OSError:
        if not os.path.lexists(folder):
            raise
    if whole(folder):
        return
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    os.rename(folder, old)
    try:
        os.rename(partial, folder)
    except OSError:
        # Another process put its own there between the two renames.
        if not whole(folder):
            raise
    finally:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def sweep(cache: Path) -> list[Path]:
    """Remove the drafts that no living process writes; returns them.

    What may not be removed stays: a cache that is read-only is swept by nobody.
    """
    try:
        names = sorted(name for name in os.listdir(cache) if _DRAFT.fullmatch(name))
    except OSError:
        return []
    dead = [cache / name for name in names if _is_dead(cache / name)]
    for path in dead:
        _remove(path)
    return dead


def _is_dead(path: Path) -> bool:
    match = _DRAFT.fullmatch(path.name)
    if match is not None and match["old"]:
        return True
    try:
        age = time.time() - path.stat().st_mtime
        with open(path / _LOCK, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            host = lock.read()
        # Without a name the writer may be about to lock.
        patience = _FOREIGN_SECONDS if host else _YOUNG_SECONDS
        return host == socket.gethostname() or age > patience
    except FileNotFoundError:
        return path.exists() and age > _YOUNG_SECONDS
    except OSError:  # BlockingIOError: its writer lives. Others: nothing that we may touch.
        return False
