"""A private folder for a Ray: its token, its sockets, its logs."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from pathlib import Path

from search_space.errors import InputError

FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")
INSIDE = "ray"  # Ray opens its own folder to everybody (mode 777): it must lie in a closed one
# What Ray puts behind ours; a Unix socket's path has room for about a hundred bytes.
LONGEST = f"{INSIDE}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


def private_folder() -> Path:
    """A new folder that only this user reads (mode 700), with `token` in it (mode 600).

    It lies in $TMPDIR when that is usable and short enough for Ray's sockets, else in /tmp,
    /var/tmp or /dev/shm. Raises InputError when no place will do.
    """
    given = os.environ.get("TMPDIR", "")
    for place in [given] if given else []:
        if folder := _folder_in(place):
            return folder
    for place in FALLBACKS:
        if folder := _folder_in(place):
            return folder
    raise InputError(
        "Ray needs a short folder that can be written and holds sockets: neither "
        f"TMPDIR={given!r} nor {', '.join(FALLBACKS)} is one; set TMPDIR to such a folder"
    )


def _folder_in(place: str) -> Path | None:
    """A private folder in `place`; None when something Ray needs does not work there."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="nas-", dir=os.path.abspath(place)))
    except OSError:
        return None
    probe = folder / LONGEST.replace("/", "-")
    token = folder / "token"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(probe))
        probe.unlink()
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except OSError:
        for leftover in (probe, token):
            leftover.unlink(missing_ok=True)
        folder.rmdir()
        return None
    return folder


def usable_tmpdir() -> bool:
    """Whether $TMPDIR is unset or a folder that can be written."""
    given = os.environ.get("TMPDIR", "")
    return not given or (os.path.isdir(given) and os.access(given, os.W_OK | os.X_OK))
