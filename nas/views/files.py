"""A text written into a file whole, or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from search_space.errors import InputError, require


def write_whole(text: str, path: str | Path, what: str) -> Path:
    """Write `text` to a new file, or in place of one; a reader finds the old one or the new one.

    what: it is, for errors.
    Raises InputError where it cannot be written; nothing has changed then.
    """
    way_out = "choose another file"
    try:
        target = Path(path).resolve()  # a link stays one
        there = os.path.lexists(target)
        require(
            not there or target.is_file(),
            f"cannot write {what} to {path}: it is no regular file; {way_out}",
        )
        draft = _draft(text, target)
    except (OSError, ValueError) as error:  # ValueError: what no file name can hold
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {what} to {path}: {reason}; {way_out}") from None
    try:
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"cannot write {what} to {path}: {error.strerror}; {way_out}") from None
    return Path(path)


def _draft(text: str, target: Path) -> Path:
    """The text in a file beside its place."""
    draft = target.with_name(f".{uuid.uuid4().hex}.draft")
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    return draft
