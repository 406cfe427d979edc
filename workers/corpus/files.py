"""The files of a corpus: which they are, how each is read, and a digest of what it holds."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem

from search_space.corpus import STDLIB, CorpusSpec
from search_space.errors import InputError, require
from workers.corpus.account import Account
from workers.corpus.local import find_local, glob_local
from workers.corpus.location import locate
from workers.corpus.reasons import reason
from workers.corpus.seal import file_digest

Format = Literal["text", "json", "parquet"]

# fmt: off
_TEXT_SUFFIXES = [
    ".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".csv", ".py", ".pyi", ".c", ".h",
    ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".js", ".ts", ".rb", ".sh", ".sql", ".toml",
    ".yaml", ".yml", ".ini", ".cfg",
]
# fmt: on
FORMATS: dict[str, Format] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    **dict.fromkeys(_TEXT_SUFFIXES, "text"),
}
SUPPORTED = ".txt, .md, .py and other text, .jsonl, .parquet, each also with .gz"

# Folders that hold no text of their own: tests, caches, other people's packages.
_STDLIB_SKIPS = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
_SKIPS = {"__pycache__", "node_modules"}


@dataclass(frozen=True)
class SourceFile:
    """One file: its path or URL, how it is read, and a digest that changes with its content.

    fs: where it lies, None for this machine.
    """

    path: str
    format: Format
    digest: str
    fs: AbstractFileSystem | None = None


def list_files(spec: CorpusSpec, account: Account | None = None) -> list[SourceFile]:
    """The supported files of a stdlib, file, folder, glob or URL source, sorted by path.

    account: told what is left out, and why.
    Raises InputError when there are none or when one cannot be read.
    """
    account = account or Account()
    try:
        fs, found = _find(spec.source, account)
        return _described(fs, _supported(found, spec.source, account), spec.source, account)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Clients of URLs let their own libraries' errors through.
        raise InputError(
            f"corpus: cannot read {spec.source!r}: {reason(error)}; check the path and its "
            "permissions, and for a URL the network and the access that its protocol needs"
        ) from error


def _find(source: str, account: Account) -> tuple[AbstractFileSystem | None, list[str]]:
    if source == STDLIB:
        # What it leaves out is its definition, so there is nothing to tell.
        root = sysconfig.get_paths()["stdlib"]
        found = find_local(root, _SKIPS | _STDLIB_SKIPS, Account())
        return None, [path for path in found if path.endswith(".py")]
    fs, path = locate(source)
    if fs is not None:
        found = _find_remote(fs, path, account)
    elif os.path.lexists(path):
        found = find_local(path, _SKIPS, account)
    else:
        found = glob_local(path, _SKIPS, account)
    require(
        bool(found),
        f"corpus: no file matches source {source!r}{_told(account)}; give a path, folder, glob or "
        f"URL of text, hub:owner/name, or {STDLIB}",
    )
    return fs, found


def _told(account: Account) -> str:
    return f" ({'; '.join(account.notes)})" if account.dropped else ""


def _find_remote(fs: AbstractFileSystem, path: str, account: Account) -> list[str]:
    if fs.isfile(path):
        return [path]
    if fs.isdir(path):
        found = []
        for _, folders, files in fs.walk(path, detail=True):
            for name in list(folders):
                if name in _SKIPS or name.startswith("."):
                    account.add("skipped_folders" if name in _SKIPS else "hidden", name=name)
                    del folders[name]
            for name, info in files.items():
                if name.startswith("."):
                    account.add("hidden", name=name)
                else:
                    found.append(info["name"])
        return found
    return _glob_remote(fs, path, account)


def _glob_remote(fs: AbstractFileSystem, pattern: str, account: Account) -> list[str]:
    asked = [part for part in pattern.split("/") if part.startswith(".")]
    skips = _SKIPS - set(pattern.split("/"))
    found, skipped = [], set()
    for name in fs.glob(pattern):
        parts = name.split("/")
        inside = next((i for i, part in enumerate(parts[:-1]) if part in skips), None)
        dotted = [part for part in parts if part.startswith(".")]
        if inside is not None:
            skipped.add("/".join(parts[: inside + 1]))
        elif not all(any(fnmatch.fnmatchcase(d, a) for a in asked) for d in dotted):
            account.add("hidden", name=PurePosixPath(name).name)
        elif fs.isfile(name):
            found.append(name)
    for folder in sorted(skipped):
        account.add("skipped_folders", name=PurePosixPath(folder).name)
    return found


def _supported(found: list[str], source: str, account: Account) -> list[str]:
    supported = [path for path in found if _format(path) is not None]
    suffixes = sorted({_suffixes(path) for path in found if _format(path) is None})
    left_out = len(found) - len(supported)
    for suffix in suffixes:
        account.add("unsupported_files", left_out, name=suffix)
        left_out = 0
    if not supported:
        where = "is" if found == [source] else "holds"
        raise InputError(
            f"corpus: {source!r} {where} no supported file (found suffixes: "
            f"{', '.join(suffixes[:5])}); supported: {SUPPORTED}"
        )
    return supported


def _name(path: str) -> PurePosixPath:
    # What follows ? or # in a web address is no part of the file's name.
    web = path.startswith(("http://", "https://"))
    return PurePosixPath((urlsplit(path).path if web else path).lower())


def _suffixes(path: str) -> str:
    return "".join(_name(path).suffixes[-2:])[:40] or "none"


def _format(path: str) -> Format | None:
    name = _name(path)
    suffix = name.with_suffix("").suffix if name.suffix == ".gz" else name.suffix
    return FORMATS.get(suffix)


def _described(
    fs: AbstractFileSystem | None, paths: list[str], source: str, account: Account
) -> list[SourceFile]:
    files = []
    for path in sorted(paths):
        kind = _format(path)
        assert kind is not None
        try:
            digest = file_digest(path) if fs is None else _stamp(fs, path)
        except PermissionError:
            account.add("unreadable", name=PurePosixPath(path).name)
            continue
        shown = path if fs is None else fs.unstrip_protocol(path)
        files.append(SourceFile(path if fs is None else shown, kind, digest, fs))
    require(
        bool(files),
        f"corpus: no file of {source!r} may be read{_told(account)}; grant the worker's user the "
        "permission to read them",
    )
    return files


def _stamp(fs: AbstractFileSystem, path: str) -> str:
    """The store's own stamp (an ETag, say) where it has one: hashing downloads the file twice."""
    if not path.startswith(("http://", "https://")):
        return str(fs.ukey(path))
    info = fs.info(path)
    stamps = [info.get(k) for k in ("ETag", "Content-MD5", "Digest", "Last-Modified")]
    if any(stamps):
        return repr([path, info.get("size"), *stamps])
    with fs.open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
