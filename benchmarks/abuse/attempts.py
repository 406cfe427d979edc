"""Make the attempts of a kind and count the wrong outcomes."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.report import Row


def rows(kinds: Iterable[str], seed: int) -> Iterator[Row]:
    """A row a kind: wrong outcomes among its `FULL` attempts, none allowed."""
    for kind in kinds:
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.abuse.{kind}")
        wrong = failures(kind, module.FULL, seed)
        for line in wrong:
            print(f"{kind}: {line}", file=sys.stderr)
        took = time.monotonic() - began
        name = f"{kind.replace('_', ' ')}: wrong outcomes of {module.FULL:,} attempts"
        yield Row(name, len(wrong), "", "<= 0", not wrong)
        yield Row(f"{kind.replace('_', ' ')}: time", round(took, 1), "s")


def failures(kind: str, count: int, seed: int = 0) -> list[str]:
    """The wrong outcomes of `count` attempts of a kind, a line each.

    Raises RuntimeError when another number of attempts was made.
    """
    module = importlib.import_module(f"benchmarks.abuse.{kind}")
    with tempfile.TemporaryDirectory(prefix="abuse-") as folder:
        outcomes = list(module.attempts(count, seed, Path(folder)))
    if len(outcomes) != count:
        raise RuntimeError(f"{kind} made {len(outcomes)} attempts, {count} were asked for")
    return [outcome for outcome in outcomes if outcome]
