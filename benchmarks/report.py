"""What every benchmark writes: a table for people, JSON for tools, an exit code for CI."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from search_space.errors import InputError


@dataclass(frozen=True)
class Row:
    """One measured value.

    bar: what it was held against, "" for nothing.
    holds: whether it did.
    """

    name: str
    value: float | str
    unit: str = ""
    bar: str = ""
    holds: bool = True


def at_most(name: str, value: float, bar: float, unit: str = "") -> Row:
    """A row that holds while value <= bar."""
    return Row(name, value, unit, f"<= {bar:g}", value <= bar)


def at_least(name: str, value: float, bar: float, unit: str = "") -> Row:
    """A row that holds while value >= bar."""
    return Row(name, value, unit, f">= {bar:g}", value >= bar)


def main(rows: Callable[[], Iterable[Row]], doc: str | None) -> NoReturn:
    """The whole command of a benchmark that has no options but --json."""
    options = parser(doc).parse_args()
    sys.exit(publish(rows(), options.json))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line with --json."""
    result = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    result.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, too")
    return result


def publish(rows: Iterable[Row], file: Path | None = None) -> int:
    """Print the rows, write them to `file`; returns the exit code, 1 when a row does not hold, 2
    when what was given cannot be measured."""
    try:
        rows = list(rows)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    Console().print(_table(rows))
    if file is not None:
        record = {"rows": [asdict(row) for row in rows], "machine": machine(), "commit": commit()}
        file.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row.holds for row in rows) else 1


def _table(rows: list[Row]) -> Table:
    table = Table("name", "value", "unit", "bar", "holds", highlight=False)
    for row in rows:
        value = f"{row.value:,.4g}" if isinstance(row.value, float) else str(row.value)
        verdict = ("yes" if row.holds else "NO") if row.bar else ""
        table.add_row(row.name, value, row.unit, row.bar, verdict)
    return table


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    try:
        import torch
    except ImportError:
        return facts
    facts["torch"] = torch.__version__
    facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """The checkout's commit, with "+" for uncommitted changes; "" outside a checkout."""
    root = Path(__file__).parent
    try:
        name = _git(root, "rev-parse", "HEAD")
        return name + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()
