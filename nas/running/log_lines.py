"""Lines of what runs that are not stored yet: they wait for the next write about their study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from nas.store import EvaluationRecord
from search_space.contract import Level, LogLine


class WaitingLines:
    """What workers and their driver said, in order.

    They cost no write of their own: points of curves, endings and the driver's signs of life, which
    come every few seconds, take them along.
    """

    def __init__(self) -> None:
        self._lines: list[LogLine] = []

    def hear(self, lines: Iterable[LogLine]) -> None:
        """A worker's."""
        self._lines += lines

    def say(self, evaluation: EvaluationRecord, level: Level, text: str) -> None:
        """The driver's own, of why there is this attempt at the evaluation."""
        own = {"evaluation": evaluation.id, "attempt": evaluation.attempt, "number": 0}
        self._lines.append(LogLine(**own, at=datetime.now(UTC), level=level, text=text))

    @contextmanager
    def stored(self) -> Iterator[tuple[LogLine, ...]]:
        """All that wait, for a write in the block; when it fails they go on waiting."""
        lines = tuple(self._lines)
        yield lines
        del self._lines[: len(lines)]
