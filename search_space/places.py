"""Where things are: the database, the cache of what can be made again, and a home.

The dashboard, the command, the store and the Python interface take the same names from here.
"""

from __future__ import annotations

import os
from pathlib import Path

from search_space.errors import InputError

DB_VARIABLE = "NAS_DB"
DEFAULT_DB = "sqlite:///nas.db"  # in the working directory
VARIABLE = "FFN_NAS_CACHE"
CORPORA = "corpora"  # the cache's folder of prepared corpora, one each
KERNELS = "kernels"  # its folder of what was measured of kernels on this machine


def cache_dir() -> Path:
    """$FFN_NAS_CACHE, else `ffn-nas` in the user's cache folder.

    Raises InputError where there is neither: a container's user often has no home directory, or
    one that only root may write.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    base, home = os.environ.get("XDG_CACHE_HOME"), _home()
    if base:
        return Path(base) / "ffn-nas"
    if home is None:
        raise InputError(
            f"there is no home directory to keep prepared corpora in: set {VARIABLE} to a folder"
        )
    folder = home / ".cache" / "ffn-nas"
    if not os.path.isdir(folder) and not _can_hold(folder):
        raise InputError(
            f"prepared corpora cannot be kept in {folder}, which you may not write: set {VARIABLE} "
            "to a folder that you may"
        )
    return folder


def corpora_dir() -> Path:
    """The cache's folder of prepared corpora. Raises InputError where there is no cache."""
    return cache_dir() / CORPORA


def settle_home() -> None:
    """Where the user has no home to write in, make one in $FFN_NAS_CACHE, for this process.

    Other packages keep files at home. Without one they fail, or make a folder named `~`.
    """
    given, home = os.environ.get(VARIABLE), _home()
    if not given or (home is not None and _can_hold(home / ".cache")):
        return
    made = Path(given).absolute() / "home"
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # what needs the cache says why it cannot be written
    os.environ["HOME"] = str(made)


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _can_hold(folder: Path) -> bool:
    """Whether files can be made in `folder`, which may have to be made first."""
    existing = next(p for p in (folder, *folder.parents) if os.path.exists(p))
    return os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)
