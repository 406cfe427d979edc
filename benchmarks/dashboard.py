"""How the dashboard does with a large study: how soon each page is of use, what it sends and costs.

python -m benchmarks.dashboard --json dashboard.json --store ~/dashboard-store   # 50,000 trials
python -m benchmarks.dashboard --trials 400 --points 5 --seconds 5 --pairs 1

The store of 50,000 trials and 100,000 evaluations takes five minutes and 2 GB to make; --store
keeps it for the next time. Runs that read it add some trials to it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.dashboard_browser import browser_rows, missing
from benchmarks.dashboard_crowd import PAIRS, crowd_rows
from benchmarks.reading_store import TWO_EACH, fill
from benchmarks.report import Row, parser, publish
from nas.store import Store

TRIALS, POINTS, SECONDS = 50_000, 40, 60.0


def rows(
    trials: int, points: int, seconds: float, pairs: int, folder: Path | None = None
) -> Iterator[Row]:
    """Everything that is measured.

    points: of each evaluation's curve.
    seconds: that one live page is watched.
    pairs: measures without and with ten open pages; 0 measures none.
    folder: where the store is kept; None for a temporary one.
    """
    with store(trials, points, folder) as url:
        yield Row("trials, with two evaluations each", trials)
        yield Row("load of the machine before it began", os.getloadavg()[0], "cores")
        why = missing()
        if why:
            yield Row("in a browser", f"not measured: {why}")
        else:
            yield from browser_rows(url, TWO_EACH, seconds)
        if pairs:
            yield from crowd_rows(url, TWO_EACH, pairs)


@contextmanager
def store(trials: int, points: int, folder: Path | None) -> Iterator[str]:
    """The URL of a store with the study, made where it is not there yet."""
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="dashboard-")
        with temporary as made, store(trials, points, Path(made)) as url:
            yield url
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"trials-{trials}-points-{points}.db"
    if not file.exists():
        half = file.with_suffix(".part")
        half.unlink(missing_ok=True)
        with Store.open(f"sqlite:///{half}") as new:
            fill(new, trials, points, TWO_EACH)
        half.rename(file)
    with Store.open(f"sqlite:///{file}"):  # one that was kept may have an older schema
        pass
    yield f"sqlite:///{file}"


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--trials", type=int, default=TRIALS)
    command.add_argument("--points", type=int, default=POINTS, help="of each curve")
    command.add_argument("--seconds", type=float, default=SECONDS, help="a live page is watched")
    command.add_argument("--pairs", type=int, default=PAIRS, help="without and with ten pages")
    command.add_argument("--store", type=Path, help="folder that keeps the store")
    options = command.parse_args()
    sys.exit(
        publish(
            rows(options.trials, options.points, options.seconds, options.pairs, options.store),
            options.json,
        )
    )
