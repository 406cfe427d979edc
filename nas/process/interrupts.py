"""When a signal that asks to stop takes effect: the one place that decides it, for every command.

SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal) mean the same. The handler runs between any
two steps of the main thread, also inside a commit, an import or a `finally`; an exception raised
there breaks what nobody meant to be broken. So where the work leaves something behind, a signal is
only noted, and the work looks for the note where it is safe:

- `held()`: a signal is noted. The driver calls `check()` at its turns, which come twice a second.
- `breakable()`: a wait inside held work that can be left at any point: KeyboardInterrupt at once,
  also for a signal noted before.
- elsewhere a listening command is breakable: reading and printing leave nothing behind.

The first signal counts; later ones do not disturb the clean-up. Both have an end: a
KeyboardInterrupt that foreign code swallowed is raised again every `INSIST_SECONDS`, and a clean-up
that takes more than `CLEAN_UP_SECONDS` ends with the process, a line and exit code 130.

SIGHUP that is ignored at the start (`nohup`) stays ignored. Only the main thread can listen; in
other threads all of this does nothing, and the signals stay whose they are.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

STOPPED = 130  # the exit code of a command that was asked to stop
INSIST_SECONDS = 5.0
CLEAN_UP_SECONDS = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _Listening:
    """One stretch of listening.

    open: a signal may raise now.
    stuck: the section that KeyboardInterrupt was raised in, until it is left.
    forceful: a stuck clean-up may end the process.
    """

    forceful: bool
    open: bool
    thread: int = field(default_factory=threading.get_ident)
    asked: bool = False
    raised: bool = False
    stuck: bool = False
    again: bool = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            # No lock is taken: the signal may have come while `threading` held one.
            _thread.start_new_thread(_insist, (self,))
            if self.open:
                self.stop()
        elif self.again:
            self.again = False
            if self.stuck:
                raise KeyboardInterrupt

    def stop(self) -> None:
        # Closed with the same step that raises, so that nothing raises twice on the way out.
        self.stuck = self.open
        self.open, self.raised = False, True
        raise KeyboardInterrupt


_now: _Listening | None = None


def _insist(listening: _Listening) -> None:
    """Raise a swallowed KeyboardInterrupt again, and end a clean-up that does not end."""
    deadline = time.monotonic() + CLEAN_UP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(INSIST_SECONDS, CLEAN_UP_SECONDS))
        if _now is not listening:
            return
        if listening.stuck:
            listening.again = True
            signal.pthread_kill(listening.thread, signal.SIGINT)
    if listening.forceful:
        line = f"Error: stopped; the clean-up did not end within {CLEAN_UP_SECONDS:g} s\n"
        os.write(2, line.encode())
        os._exit(STOPPED)
    listening.stuck = listening.again = True
    signal.pthread_kill(listening.thread, signal.SIGINT)


def _mine() -> _Listening | None:
    """The listening of this very thread."""
    return _now if _now is not None and _now.thread == threading.get_ident() else None


def _listen(listening: _Listening) -> dict[int, Any]:
    """Install the handler; returns what was there."""
    global _now
    _now = listening
    before: dict[int, Any] = {}
    for number in SIGNALS:
        if number != SIGNALS[0] and signal.getsignal(number) is signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, listening.handle)
    return before


@contextmanager
def listening() -> Iterator[None]:
    """Signals stop the block as this module says, for callers that are no command of their own.

    Nothing changes where somebody listens already, and in other threads than the main one.
    """
    global _now
    if _now is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = _Listening(forceful=False, open=False)
    before = _listen(mine)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _now = None
    if mine.asked:  # after the last look
        raise KeyboardInterrupt


def command(run: Callable[[], int]) -> int:
    """Run a whole command and return its exit code; from its end on signals change nothing."""
    global _now
    _listen(_Listening(forceful=True, open=True))
    try:
        return run()
    except KeyboardInterrupt:  # as the last line was printed
        return STOPPED
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _now = None


@contextmanager
def held() -> Iterator[None]:
    """A signal is noted; it takes effect at `check`, in a `breakable` wait, or after the block."""
    mine = _mine()
    if mine is None:
        yield
        return
    before, mine.open, mine.stuck = mine.open, False, False
    try:
        yield
    finally:
        mine.open = before
        if before and mine.asked and not mine.raised:
            mine.stop()


@contextmanager
def breakable() -> Iterator[None]:
    """A signal, also one noted before, raises KeyboardInterrupt at once."""
    mine = _mine()
    if mine is None:
        yield
        return
    before, mine.open = mine.open, True
    try:
        check()
        yield
    finally:
        mine.open, mine.stuck = before and not mine.raised, False


def check() -> None:
    """Raise KeyboardInterrupt when a signal was noted."""
    mine = _mine()
    if mine is not None and mine.asked:
        mine.stop()


def asked() -> bool:
    """Whether a signal asked to stop; what fails from then on may be its effect."""
    return _now is not None and _now.asked
