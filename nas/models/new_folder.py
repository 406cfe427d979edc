"""A new or empty directory that is filled whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.process import interrupts
from search_space.errors import InputError, require


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a draft to write into; it becomes `target` when the block ends without an exception.

    A target that does not exist is written beside its place and renamed. One that exists and is
    empty may be `.`, a link or a mounted volume, which cannot be renamed over: the draft lies
    inside it and is emptied into it. On an exception nothing is left of either.
    Raises InputError when the target is no directory, holds files or cannot be written.
    """
    with interrupts.held():  # a signal interrupts the block alone
        yield from _filled(target)


def _filled(target: Path) -> Iterator[Path]:
    check_target(target)
    inside = os.path.exists(target)
    made = [] if inside else _missing_folders(target)
    draft = None
    try:
        draft = _make_draft(target if inside else target.parent)
        with interrupts.breakable():
            yield draft
        if inside:
            _move_up(draft)
        else:
            draft.chmod(0o755)
            draft.rename(target)
        made = []
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            # It may hold what others put there meanwhile, or was never made.
            with suppress(OSError):
                folder.rmdir()


def check_target(target: Path) -> None:
    """Raise InputError unless `target` is missing or an empty directory."""
    way_out = "choose another --to"
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return  # what stands above it is told when its folders are made
    except OSError as error:
        raise InputError(f"export cannot look at {target}: {error.strerror}; {way_out}") from None
    except ValueError as error:  # a NUL, or what no file name can hold
        raise InputError(f"export cannot look at {str(target)!r}: {error}; {way_out}") from None
    # Not Path.exists: a link may lead where nobody may look.
    there = os.path.exists(target)
    require(there, f"export needs a directory: {target} is a link to nothing; {way_out}")
    require(os.path.isdir(target), f"export needs a directory: {target} is a file; {way_out}")
    try:
        empty = not any(target.iterdir())
    except OSError as error:
        raise InputError(f"export cannot read {target}: {error.strerror}; {way_out}") from None
    require(empty, f"export needs a new or empty directory: {target} holds files; {way_out}")


def _missing_folders(target: Path) -> list[Path]:
    """The folders above `target` that have to be made for it, the innermost first."""
    return [folder for folder in target.absolute().parents if not os.path.exists(folder)]


def _make_draft(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise InputError(
            f"export cannot write to {folder}: {error.strerror}; choose another --to"
        ) from None


def _move_up(draft: Path) -> None:
    """Empty a draft into the folder that holds it; take all of it back when that fails."""
    moved = []
    try:
        for path in sorted(draft.iterdir()):
            path.rename(draft.parent / path.name)
            moved.append(draft.parent / path.name)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise
