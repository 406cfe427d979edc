"""The files of a corpus: which they are, what they hold, and a digest of it."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from search_space.corpus import STDLIB, CorpusSpec
from search_space.errors import InputError, require

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
    """One file: its path or URL, how it is read, and a digest that changes with its content."""

    path: str
    format: Format
    digest: str


def list_files(spec: CorpusSpec) -> list[SourceFile]:
    """The supported files of a stdlib, file, folder, glob or URL source, sorted by path.

    Raises InputError when there are none or when one cannot be read.
    """
    source = sysconfig.get_paths()["stdlib"] if spec.source == STDLIB else spec.source
    try:
        fs, path = url_to_fs(source)
        found = _find(fs, path, spec.source)
        return [_describe(fs, name) for name in sorted(found)]
    except InputError:
        raise
    except (OSError, ImportError, ValueError) as error:
        raise InputError(
            f"corpus: cannot read {spec.source!r}: {error}; check the path and its permissions, "
            "and for a URL that the package of its protocol is installed"
        ) from error


def _find(fs: AbstractFileSystem, path: str, source: str) -> list[str]:
    if fs.isfile(path):
        found, where = [path], "is"
    elif fs.isdir(path):
        skips = _SKIPS | _STDLIB_SKIPS if source == STDLIB else _SKIPS
        found, where = _walk(fs, path, skips), "holds"
    else:
        found, where = [p for p in fs.glob(path) if fs.isfile(p)], "matches"
        require(
            bool(found),
            f"corpus: no file matches source {source!r}; give a path, folder, glob or URL of "
            f"text, hub:owner/name, or {STDLIB}",
        )
    if source == STDLIB:
        found = [p for p in found if p.endswith(".py")]
    supported = [p for p in found if _format(p) is not None]
    suffixes = sorted({"".join(PurePosixPath(p).suffixes[-2:]) or "none" for p in found})[:5]
    require(
        bool(supported),
        f"corpus: {source!r} {where} no supported file (found suffixes: "
        f"{', '.join(suffixes) or 'no files'}); supported: {SUPPORTED}",
    )
    return supported


def _walk(fs: AbstractFileSystem, root: str, skips: Iterable[str]) -> list[str]:
    found = []
    for _, folders, files in fs.walk(root, detail=True):
        for name in list(folders):
            if name in skips or name.startswith("."):
                del folders[name]
        found += [info["name"] for name, info in files.items() if not name.startswith(".")]
    return found


def _format(path: str) -> Format | None:
    name = PurePosixPath(path.lower())
    suffix = name.with_suffix("").suffix if name.suffix == ".gz" else name.suffix
    return FORMATS.get(suffix)


def _describe(fs: AbstractFileSystem, path: str) -> SourceFile:
    kind = _format(path)
    assert kind is not None
    if "file" not in _protocols(fs):
        # The store's own stamp (an ETag, say), because hashing would download the file twice.
        return SourceFile(fs.unstrip_protocol(path), kind, str(fs.ukey(path)))
    with open(path, "rb") as file:
        return SourceFile(path, kind, hashlib.file_digest(file, "sha256").hexdigest())


def _protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
