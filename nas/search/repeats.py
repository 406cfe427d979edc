"""Which design has a further seed next: the contenders, those with the fewest seeds first."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from nas.search.evidence import Contender, Evidence
from nas.search.yardstick import Costs


@dataclass(slots=True)
class BegunTrial:
    """What the scheduler remembers of a design.

    cost: what is compared (`nas.search.yardstick`).
    seeds: runs that were begun.

    reached: the highest rung that its first run was begun at, -1 before any.
    promise: units that a warm start still needs to reach the top.
    """

    warm: bool
    cost: Costs
    seeds: int = 0
    reached: int = -1
    promise: int = 0


class Queue:
    """The contenders by their seeds, the next to be repeated first."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._contenders: list[Contender] = []
        self._heap: list[tuple[int, bool, float, int]] = []

    def next(self, first: int, trials: Mapping[int, BegunTrial], seeds: int) -> int | None:
        """Among the first so many runs: the number of the trial, None when all have had `seeds`.

        Fewest seeds, then those on the frontier, then fewer bits per byte, then the lower number.
        """
        contenders = self.evidence.contenders(first)
        if contenders is not self._contenders:
            self._contenders = contenders
            self._heap = [
                (trials[c.number].seeds, not c.on_frontier, c.bits_per_byte, c.number)
                for c in contenders
            ]
            heapq.heapify(self._heap)
        while self._heap and self._heap[0][0] < seeds:
            had, near, bits, number = self._heap[0]
            now = trials[number].seeds
            if had == now:
                return number
            heapq.heapreplace(self._heap, (now, near, bits, number))
        return None
