"""The rate of this machine's products, which steps are held against."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch

from benchmarks.turns import Call, ratio
from workers.kernels.products import CUBE, TOLERANCE, measured
from workers.kernels.switch import onednn

TIMES = 8  # products of a turn, for one alone is too short beside a step
FLOPS = TIMES * 2.0 * CUBE**3  # of a turn
OTHER = 1.25  # a library is another one than torch's default where it is faster by this much


def cubes() -> list[Call]:
    """Calls of a turn of products of a `CUBE` cube in float32: by torch's default, and by oneDNN
    where it multiplies in float32."""
    a = torch.randn(CUBE, CUBE)
    out = torch.empty_like(a)

    def products(on: bool) -> None:
        with onednn(on):
            for _ in range(TIMES):
                torch.mm(a, a, out=out)

    exact = measured(torch.get_num_threads()).error <= TOLERANCE
    return [lambda: products(False), *([lambda: products(True)] if exact else [])]


def best_rate(seconds: Sequence[list[float]]) -> tuple[list[float], float]:
    """Of the turns of `cubes`: the seconds of the fastest library, and how many times faster it is
    than torch's default."""
    fastest = min(seconds, key=median)
    return fastest, ratio(seconds[0], fastest)
