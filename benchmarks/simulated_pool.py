"""The pool that runs a study in simulated time: for tests, and for benchmarks of the driver."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from nas.running.pool import Event
from search_space.contract import EvalRequest, Precision
from search_space.corpus import CorpusSpec


class SimulatedPool:
    """A pool in simulated time: `work` says how long an evaluation takes and how it ends.

    work(request) -> (simulated seconds, events in order, the EvalResult last). One `events` call
    moves the clock to the next ending, so that a study of hours runs in milliseconds.
    """

    def __init__(
        self, slots: int, work: Callable[[EvalRequest], tuple[float, list[Event]]]
    ) -> None:
        self._slots, self._work = slots, work
        self._running: list[tuple[float, int, list[Event]]] = []  # a heap, by the time of the end
        self._submitted = 0
        self.notes: list[str] = []
        self.clock = 0.0
        self.closed = False

    @property
    def slots(self) -> int:
        """Evaluations that run at once."""
        return self._slots

    def prepare(
        self, spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str
    ) -> dict[str, Any]:
        """A corpus without text: nothing reads it in simulated time."""
        return {"dir": "", "meta": {"vocab_size": vocab_size}, "ngram_bits_per_byte": {}}

    def precision(self, asked: Precision, device: str) -> Precision:
        """What is asked for; simulated workers have no reason to choose another than float32."""
        return "float32" if asked == "auto" else asked

    def submit(self, request: EvalRequest) -> None:
        """Queue the evaluation's events at its simulated end."""
        if len(self._running) >= self._slots:
            raise RuntimeError(f"all {self._slots} slots are busy")
        seconds, events = self._work(request)
        heapq.heappush(self._running, (self.clock + seconds, self._submitted, events))
        self._submitted += 1

    def events(self, timeout: float) -> list[Event]:
        """The events of the evaluation that ends next."""
        if not self._running:
            return []
        self.clock, _, events = heapq.heappop(self._running)
        return events

    def close(self) -> None:
        """Forget what runs."""
        self._running.clear()
        self.closed = True
