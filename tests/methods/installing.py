"""A distribution as an installer leaves it, with entry points for selection methods."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, entry_points: str) -> None:
    """What an installer leaves of a distribution beside its code."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ffn_nas.methods]\n{entry_points}\n")
