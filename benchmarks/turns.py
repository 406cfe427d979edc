"""Calls timed by turns in one process: what stands beside what, on a machine that is noisy."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

TURNS, WARM_UP = 11, 2

Call = Callable[[], object]


def take_turns(calls: list[Call], turns: int = TURNS) -> list[list[float]]:
    """Seconds of each call, a list a call, after warm-up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(WARM_UP + turns):
        for call, own in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call()
            if turn >= WARM_UP:
                own.append(time.perf_counter() - began)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How many times faster ours is: the median over the turns."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))
