"""Checks that a machine has passed, kept on disk: each is named by all that it depends on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

log = logging.getLogger(__name__)


def passed(path: Path) -> list[str]:
    """The names that `remember` noted there."""
    try:
        return list(json.loads(path.read_text()))
    except (OSError, ValueError):
        return []


def remember(path: Path, entry: str) -> None:
    """Note that a check was passed; where nothing can be written, a warning says that it will run
    again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sorted({*passed(path), entry}), indent=2) + "\n")
    except OSError as error:
        log.warning("the kernels' check will run again: %s is not writable: %s", path, error)
