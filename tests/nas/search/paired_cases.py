"""Made-up designs whose true quality is known: windows of common hardness, and seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from nas.store import MeasuredRun

WINDOW_BYTES = 300


class Text:
    """A validation text: windows of known hardness, and what designs and seeds make of them.

    hard_N: nats that every design pays.
    """

    def __init__(self, source: random.Random, windows: int = 64) -> None:
        self.source = source
        self.hard_N = [source.gauss(500, 60) for _ in range(windows)]

    def design(
        self, number: int, quality: float, seeds: Sequence[int], *, scatter: float, deviation: float
    ) -> list[MeasuredRun]:
        """A design's runs: `quality` bits per byte are added on average over all possible texts.

        scatter: standard deviation of what it adds to a window, in bits per byte of that window.
        deviation: of one seed.
        """
        gauss, unit = self.source.gauss, math.log(2) * WINDOW_BYTES
        own_N = [quality + gauss(0, scatter) for _ in self.hard_N]
        return [
            run(
                number,
                seed,
                [h + unit * (own + shift) for h, own in zip(self.hard_N, own_N, strict=True)],
            )
            for seed, shift in ((seed, gauss(0, deviation)) for seed in seeds)
        ]


def run(number: int, seed: int, windows: Sequence[float], until_flops: float = 1e12) -> MeasuredRun:
    """A run whose bits per byte are those of its windows."""
    count = len(windows)
    bits = math.fsum(windows) / math.log(2) / (WINDOW_BYTES * count)
    middle = math.fsum(windows) / count
    squares = math.fsum((nats - middle) ** 2 for nats in windows)
    error = math.sqrt(squares / (count - 1) / count) / math.log(2) / WINDOW_BYTES
    return MeasuredRun(number, seed, until_flops, bits, error, list(windows))
