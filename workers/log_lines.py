"""What our loggers say while a worker is at an evaluation, as lines for its driver: few and short.

Nothing is caught a step: who logs decides, and a place in the code that is noisy is soon left out.
"""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from search_space.contract import EvalRequest, Level, LogLine
from search_space.log_text import MOST_OF_TRACE, log_text

log = logging.getLogger(__name__)
OURS = ("search_space", "workers", "nas")
MOST_LINES = 200  # of an attempt at an evaluation
MOST_ALIKE = 10  # of them from one place in the code
FRAMES = 6  # of a trace, the innermost ones


@contextmanager
def sent_lines(request: EvalRequest, put: Callable[[LogLine], None]) -> Iterator[None]:
    """Hand `put` what our loggers say in the block, at INFO and above, and Python's warnings.

    The last line says how many were left out, where any were.
    """
    catcher = Catcher(request, put)
    loggers = [logging.getLogger(name) for name in OURS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(catcher)
        logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        with _logged_warnings():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(catcher)
            logger.setLevel(level)
        catcher.end()


class Catcher(logging.Handler):
    """Makes lines of records, within the bounds above."""

    def __init__(self, request: EvalRequest, put: Callable[[LogLine], None]) -> None:
        super().__init__(logging.INFO)
        self.request, self.put = request, put
        self.sent = self.left_out = 0
        self.by_place: Counter[Any] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record on, or count it as left out."""
        place = getattr(record, "place", (record.pathname, record.lineno))
        self.by_place[place] += 1
        alike = self.by_place[place]
        if alike > MOST_ALIKE or self.sent >= MOST_LINES - 1:  # one is for `end`
            self.left_out += 1
            return
        try:
            text = text_of(record)
        except Exception:  # of an argument that does not fit its message
            self.handleError(record)
            return
        if alike == MOST_ALIKE:
            text += f" (said {MOST_ALIKE} times: further ones like it are left out)"
        self._send(record.created, level_of(record.levelno), text)

    def end(self) -> None:
        """Say what was left out."""
        if self.left_out:
            said = f"{self.left_out} more lines were left out of this log"
            self._send(datetime.now(UTC).timestamp(), "info", said)

    def _send(self, created: float, level: Level, text: str) -> None:
        self.sent += 1
        self.put(
            LogLine(
                evaluation=self.request.evaluation,
                attempt=self.request.attempt,
                number=self.sent,
                at=datetime.fromtimestamp(created, UTC),
                level=level,
                text=text,
            )
        )


def level_of(number: int) -> Level:
    """A level's word by logging's number."""
    if number >= logging.ERROR:
        return "error"
    return "warning" if number >= logging.WARNING else "info"


def text_of(record: logging.LogRecord) -> str:
    """What a record says, and below it the innermost part of its exception's trace."""
    said = log_text(record.getMessage())
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return said
    trace = "".join(traceback.format_exception(error, limit=-FRAMES))
    return f"{said}\n{log_text(trace, MOST_OF_TRACE)}"


@contextmanager
def _logged_warnings() -> Iterator[None]:
    """Python's warnings are logged here, too, beside what becomes of them anyway."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        before(message, category, filename, lineno, file, line)
        where = f"{os.path.basename(filename)}:{lineno}"
        extra = {"place": (filename, lineno)}
        log.warning("%s: %s: %s", where, category.__name__, message, extra=extra)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
