"""Proof that a prepared corpus is whole: lengths and checksums of its parts, sealed in meta.json.

SHA-256, because it needs no package and processors compute it at over a gigabyte a second; a part
is read again only after its file has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from workers.corpus.split import SPLITS

META = "meta.json"
PARTS = (
    *(f"{split}.{kind}" for split in SPLITS for kind in ("bin", "txt")),
    *("token_bytes.npy", "token_counts.npy", "tokenizer.json"),
)
_SEAL = "seal"

# Path -> (stat, checksum) of what this process has read.
_known: dict[Path, tuple[tuple[int, ...], str]] = {}


def sealed(data: dict[str, Any]) -> str:
    """JSON with a checksum of itself."""
    return json.dumps(data | {_SEAL: _checksum_of(data)}, indent=1)


def unsealed(text: str | bytes) -> dict[str, Any] | None:
    """What `sealed` was given, or None where that is not what `text` holds."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    seal = data.pop(_SEAL, None)
    return data if seal == _checksum_of(data) else None


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write sealed JSON; another process sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        partial.write_text(sealed(data), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote, or None where that is not what `path` holds."""
    try:
        return unsealed(path.read_bytes())
    except OSError:
        return None


def _checksum_of(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def measure(folder: Path) -> dict[str, dict[str, Any]]:
    """Length in bytes and SHA-256 of every part of a corpus."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _checksum(folder / name)}
        for name in PARTS
    }


def fault(folder: Path) -> str:
    """What is wrong with a prepared corpus, in a few words; "" when it is whole."""
    meta = read_sealed(folder / META)
    if meta is None:
        there = (folder / META).exists()
        return f"{META} is damaged" if there else f"{META} is missing"
    for name in PARTS:
        path, right = folder / name, meta["parts"][name]
        try:
            size = path.stat().st_size
            if size != right["bytes"]:
                return f"{name} has {size:,} bytes, not {right['bytes']:,}"
            if _checksum(path) != right["sha256"]:
                return f"{name} is not what was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _checksum(path: Path) -> str:
    stat = path.stat()
    signature = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    before, checksum = _known.get(path, ((), ""))
    if signature != before:
        checksum = file_digest(path)
        _known[path] = (signature, checksum)
    return checksum


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
