"""Calls timed by turns in one process: what stands beside what, on a machine that is noisy."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

TURNS, WARM_UP = 11, 2

Call = Callable[[], object]


def take_turns(calls: list[Call], turns: int = TURNS) -> list[list[float]]:
    """Seconds of this thread's own of each call, a list a call, after warm-up.

    The time that others had its core is not among them: torch must have one thread, and a call must
    start none that it waits for.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(WARM_UP + turns):
        for call, own in zip(calls, seconds, strict=True):
            began = time.thread_time()
            call()
            if turn >= WARM_UP:
                own.append(time.thread_time() - began)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times faster ours is: the median over the turns."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))
