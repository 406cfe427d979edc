"""Whether the intervals of differences hold: told from three seeds, checked by fresh ones.

Each choice of so many seeds as the known ones gives an interval for every pair of designs. In 95%
of cases it should cover the difference that the other seeds show: on the same windows, where the
noise of the seeds of both sides counts alone, and on windows that lie between them, where that of
both texts counts, too. Half of the windows are the known ones. How far the fresh seeds may scatter
themselves is predicted by the deviations that the known seeds told.

python -m benchmarks.paired --json FILE --kept RUNS   # 14 designs, 3 + 5 seeds, 4e10 FLOPs
python -m benchmarks.paired --flops 4e11 --fresh 3
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from statistics import mean, median

from benchmarks.paired_runs import DESIGNS, Measured, train
from benchmarks.report import Row, at_most, parser, publish
from nas.search.paired import CONFIDENCE, Difference, difference, measurements
from nas.search.seeds import seed_noise
from nas.search.student import quantile
from nas.store import MeasuredRun
from search_space.errors import require

LEAST, MOST = 0.90, 0.98  # of cases covered
WIDEST = 1 / 3  # of the unpaired interval
SPLITS = 60  # choices of the known seeds
UNIT = "bits per byte"
PLACES = ("the same windows", "other windows")


@dataclass
class Tally:
    """What all pairs of all splits showed.

    covered: by place, 1 or 0 a pair.
    by_design: the same on the same windows, of all pairs that a design is in.
    halves, unpaired: half the widths of the paired interval and of that of two independent texts.
    common: deviations of the common part, by split.
    deviations: of one seed's own part, by split.
    """

    covered: tuple[list[int], list[int]]
    by_design: dict[str, list[int]]
    halves: list[float]
    unpaired: list[float]
    common: list[float]
    deviations: list[float]


def rows(runs: Sequence[Measured], known: int) -> Iterator[Row]:
    """The table, from trainings of every design with the same seeds.

    known: how many seeds the intervals are told from.
    """
    seeds = sorted({run.seed for run in runs})
    require(
        2 <= known < len(seeds), f"known seeds are 2 to {len(seeds) - 1}, some fresh: got {known}"
    )
    designs = list(dict.fromkeys(run.design for run in runs))
    yield Row("designs", len(designs))
    yield Row("seeds", len(seeds))
    found = tally(runs, designs, islice(combinations(seeds, known), SPLITS))
    yield Row("intervals", len(found.halves))
    yield from _noise_rows(found)
    for place, covered in zip(PLACES, found.covered, strict=True):
        share = mean(covered)
        bar = f"{LEAST:.0%} to {MOST:.0%}"
        name = f"fresh seeds covered, on {place}"
        yield Row(name, 100 * share, "%", bar, LEAST <= share <= MOST)
    shares = {name: mean(covered) for name, covered in found.by_design.items()}
    least = min(shares, key=shares.__getitem__)
    yield Row(f"least covered design, {least}, on {PLACES[0]}", 100 * shares[least], "%")
    yield Row("median half width, unpaired", median(found.unpaired), UNIT)
    yield Row("median half width, paired", median(found.halves), UNIT)
    ratios = [a / b for a, b in zip(found.halves, found.unpaired, strict=True)]
    yield at_most("median share of the unpaired interval", median(ratios), WIDEST)


def _noise_rows(found: Tally) -> Iterator[Row]:
    yield Row("deviation of one seed, own part", mean(found.deviations), UNIT)
    believed = [deviation for deviation in found.common if deviation]
    yield Row("splits with a common part", 100 * len(believed) / len(found.common), "%")
    if believed:
        yield Row("deviation of the common part, there", mean(believed), UNIT)


def tally(
    runs: Sequence[Measured], designs: Sequence[str], splits: Iterable[Sequence[int]]
) -> Tally:
    """Every pair of designs at every choice of the known seeds."""
    found = Tally(([], []), {name: [] for name in designs}, [], [], [], [])
    halves = [[_half(run, designs, at) for run in runs] for at in (0, 1)]
    for chosen in splits:
        told = [run for run in halves[0] if run.seed in chosen]
        noise = seed_noise(told)
        found.deviations.append(noise.deviation)
        found.common.append(math.sqrt(noise.common))
        known = measurements(told)
        fresh = [measurements([r for r in half if r.seed not in chosen]) for half in halves]
        for a, b in combinations(range(len(designs)), 2):
            gap = difference(known[a], known[b], noise)
            again = [difference(side[a], side[b], noise) for side in fresh]
            errors = (
                math.hypot(gap.seeds_error, again[0].seeds_error),
                math.hypot(gap.error, again[1].error),
            )
            for covered, seen, error in zip(found.covered, again, errors, strict=True):
                covered.append(_covers(gap, seen, error))
            for at in (a, b):
                found.by_design[designs[at]].append(found.covered[0][-1])
            own = math.hypot(known[a].own_error, known[b].own_error, gap.seeds_error)
            found.halves.append(_t(gap) * gap.error)
            found.unpaired.append(_t(gap) * own)
    return found


def _covers(gap: Difference, seen: Difference, error: float) -> int:
    return int(abs(gap.value - seen.value) <= _t(gap) * error)


def _t(gap: Difference) -> float:
    return quantile((1 + CONFIDENCE) / 2, round(gap.freedom, 1))


def _half(run: Measured, designs: Sequence[str], at: int) -> MeasuredRun:
    """The run on every second window, from `at` on, taken to be half of the text's bytes."""
    windows = run.windows[at::2]
    share = 2 * math.fsum(windows) / math.fsum(run.windows)
    error = run.bits_per_byte_se * math.sqrt(2)
    trial = designs.index(run.design)
    return MeasuredRun(trial, run.seed, 1.0, share * run.bits_per_byte, error, windows)


def _options() -> argparse.Namespace:
    command = parser(__doc__)
    command.add_argument("--designs", default=",".join(DESIGNS), help="presets, by comma")
    command.add_argument("--seeds", type=int, default=3, help="that intervals are told from")
    command.add_argument("--fresh", type=int, default=5, help="further seeds")
    command.add_argument("--flops", type=float, default=4e10, help="training FLOPs of a run")
    command.add_argument("--eval-tokens", type=int, default=65_536)
    command.add_argument("--kept", type=Path, help="a file of the trainings, to go on with")
    return command.parse_args()


if __name__ == "__main__":
    options = _options()
    trained = train(
        options.designs.split(","),
        range(options.seeds + options.fresh),
        options.flops,
        options.eval_tokens,
        kept=options.kept,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    sys.exit(publish(rows(trained, options.seeds), options.json))
