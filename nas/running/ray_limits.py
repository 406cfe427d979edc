"""How long the pool waits for Ray and its workers before it says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds.

    reach: to open a connection to a cluster's address.
    connect: for a cluster to take us in.
    start: for a local Ray to start, and again for its workers or a replaced worker.
    silent: without a sign of life from a worker, which sends one every two seconds from a thread
        that no training step holds up.
    still: without progress of an evaluation, unless twenty times the longest stretch between two
        points of its curve is more. It must cover the measuring after the last point.
    answer: for the process that holds Ray to answer what never takes long.
    stopped: that Ray's own processes may be stopped by a signal.
    leave: to leave a cluster in order.
    note: between two notes that a corpus is still being prepared, which has no end of its own.
    """

    reach: float = 5.0
    connect: float = 30.0
    start: float = 120.0
    silent: float = 60.0
    still: float = 1800.0
    answer: float = 60.0
    stopped: float = 30.0
    leave: float = 10.0
    note: float = 300.0
