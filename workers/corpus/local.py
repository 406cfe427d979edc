"""The files of this machine that a path, a folder or a glob names.

A symbolic link is followed; what it leads to is read once, and under its own name where that is in
the source too. Pipes, sockets and devices are never opened.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import stat
from collections.abc import Collection, Iterator

from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.reasons import reason

_MAGIC = re.compile(r"[*?\[]")


def find_local(path: str, skips: Collection[str], account: Account) -> list[str]:
    """The file `path`, or every file below the folder `path`, hidden ones left out.

    skips: names of folders that are not entered.
    Raises InputError for what is neither.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise InputError(
            f"corpus: cannot read {path!r}: {reason(error)}; check the path and its permissions"
        ) from error
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise InputError(
            f"corpus: a source is a file or a folder: {path!r} is a pipe, socket or device; write "
            "its text into a file"
        )
    found = _Found(account, frozenset(skips))
    for folder in _folders(path, found):
        for entry in _entries(folder, account):
            if entry.name.startswith("."):
                found.leave_out("hidden", entry.path)
            else:
                found.take(entry.path)
    return found.files()


def glob_local(pattern: str, skips: Collection[str], account: Account) -> list[str]:
    """The files that a glob matches: `*`, `?` and `[...]` in a name, `**` for folders below.

    A name that begins with a dot counts only where its part of the pattern does. A part that
    exists as it is written is that name.
    skips: names of folders that are not entered, but where the pattern spells them.
    """
    start = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    # Two of ** in a row match what one does, and would take the square of its time.
    parts = [part for i, part in enumerate(parts) if part != "**" or parts[i - 1 : i] != ["**"]]
    found = _Found(account, frozenset(skips) - set(parts))
    for path in _expand(start, parts, found):
        found.take(path)
    return found.files()


def _expand(base: str, parts: list[str], found: _Found) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    literal = os.path.join(base, part)
    if os.path.lexists(literal):
        yield from _expand(literal, rest, found)
    elif part == "**":
        for folder in _folders(base or ".", found):
            inside = folder.removeprefix("./") if base == "" else folder
            yield from _expand("" if inside == "." else inside, rest or ["*"], found)
    elif _MAGIC.search(part):
        for entry in _entries(base or ".", found.account):
            fits = fnmatch.fnmatchcase(entry.name, part)
            if not fits or (_kind(entry.path) == "folder") != bool(rest):
                continue
            path = os.path.join(base, entry.name)
            if entry.name.startswith(".") and not part.startswith("."):
                found.leave_out("hidden", path)
            elif rest and entry.name in found.skips:
                found.leave_out("skipped_folders", path)
            else:
                yield from _expand(path, rest, found)


def _folders(root: str, found: _Found) -> Iterator[str]:
    """`root` and the folders below, each real folder once: links come after all the others."""
    waiting, seen = [root], set()
    links: list[str] = []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            found.account.add("repeated_links", name=os.path.relpath(folder, root))
            continue
        seen.add(real)
        yield folder
        for entry in _entries(folder, Account()):
            if _kind(entry.path) != "folder":
                continue
            if entry.name.startswith("."):
                found.leave_out("hidden", entry.path)
            elif entry.name in found.skips:
                found.leave_out("skipped_folders", entry.path)
            else:
                (links if entry.is_symlink() else waiting).append(entry.path)


def _entries(folder: str, account: Account) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        account.add("unreadable", name=f"{os.path.basename(folder)}/")
    except (NotADirectoryError, FileNotFoundError):
        pass  # a pattern goes on below a file, or the folder went away: nothing is there to read
    return []


def _kind(path: str) -> str:
    """`file`, `folder`, `special_files`, or why it is none of them: a key of the account."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return "unreadable"
    except OSError:
        return "broken_links"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "special_files"


class _Found:
    """Collects files; where several paths lead to one, the one that is no link is kept."""

    def __init__(self, account: Account, skips: frozenset[str]) -> None:
        self.account, self.skips = account, skips
        self.paths: set[str] = set()
        self.left_out: set[str] = set()
        self.real_folder = functools.lru_cache(maxsize=None)(os.path.realpath)

    def take(self, path: str) -> None:
        kind = _kind(path)
        if kind == "file":
            self.paths.add(path)
        elif kind != "folder":
            self.account.add(kind, name=os.path.basename(path))

    def leave_out(self, kind: str, path: str) -> None:
        """Count `path` once, however often it is met."""
        path = os.path.normpath(path)
        if path not in self.left_out:
            self.left_out.add(path)
            self.account.add(kind, name=os.path.basename(path))

    def files(self) -> list[str]:
        """Sorted by path."""
        kept: dict[str, str] = {}
        for is_link, path in sorted((os.path.islink(path), path) for path in self.paths):
            folder, name = os.path.split(path)
            real = os.path.realpath(path) if is_link else f"{self.real_folder(folder)}/{name}"
            if real in kept:
                self.account.add("repeated_links", name=name)
            else:
                kept[real] = path
        return sorted(kept.values())
