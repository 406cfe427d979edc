"""Kill processes of running studies, go on with each until it is finished, count what went wrong.

python -m benchmarks.kills --faults 200 --json kills.json
python -m benchmarks.kills --faults 20 --kinds driver,worker --seed 1

Studies of tiny proxies, with rungs and repeats, on a local Ray with two workers; every second one
on PostgreSQL where its kind is asked for. The driver, a worker, the raylet, the GCS or the database
server is killed at a random moment; a study whose driver ended is gone on with by `nas resume`.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.kills_check import Findings, Undisturbed, check
from benchmarks.kills_faults import KINDS, Disturber, Tally, plan
from benchmarks.kills_study import SEEDS, Stuck, Study
from benchmarks.report import Row, at_most, parser, publish

STUDY_FAULTS = 10  # of one study, at most


def rows(
    count: int, kinds: Iterable[str], seed: int, seconds: float = 0.0, trials: int = 0
) -> Iterator[Row]:
    """Make `count` faults, or as many as begin within `seconds` where that is not 0.

    trials: of each study; 0 for as many as are usual.
    """
    began = time.monotonic()
    kinds = tuple(kinds)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        faults = plan_of(count, kinds, seed)
        tally, found, studies = disturb(Path(folder), faults, seed, seconds, trials)
    for what in ("stuck", "endings"):
        say(what, getattr(tally, what))
    for what in ("lost", "twice", "different"):
        say(what, getattr(found, what))
    took = time.monotonic() - began
    by_kind = Counter(tally.faults)
    yield Row("faults", len(tally.faults), f"of {count} asked for")
    for kind in kinds:
        yield Row(f"faults: {kind}", by_kind[kind])
    yield Row("studies", studies)
    yield Row("evaluations", found.evaluations)
    yield at_most("lost: owed, without a result, or without weights", len(found.lost), 0)
    yield at_most("done twice", len(found.twice), 0)
    yield at_most("stuck", len(tally.stuck), 0)
    yield at_most("drivers that ended of a fault that they outlive", len(tally.endings), 0)
    yield at_most("ledger: difference to what was trained", found.difference, 0, "FLOP")
    yield at_most("results that differ from undisturbed ones", len(found.different), 0)
    for kind in kinds:
        yield from recovery_rows(kind, [s for name, s in tally.recoveries if name == kind])
    yield Row("time", round(took, 1), "s")
    yield Row("time a fault", round(took / max(1, len(tally.faults)), 1), "s")


def recovery_rows(kind: str, seconds: list[float]) -> Iterator[Row]:
    """From a fault to the next point or result of what was disturbed."""
    if seconds:
        yield Row(f"recovery: {kind}, median of {len(seconds)}", statistics.median(seconds), "s")
        yield Row(f"recovery: {kind}, worst", max(seconds), "s")


def say(what: str, lines: list[str]) -> None:
    """Print what went wrong."""
    for line in lines:
        print(f"{what}: {line}", file=sys.stderr)


def plan_of(count: int, kinds: tuple[str, ...], seed: int) -> list[str]:
    """The kinds of the faults, in their order."""
    return plan(count, kinds, random.Random(seed))


def disturb(
    folder: Path, faults: list[str], seed: int, seconds: float = 0.0, trials: int = 0
) -> tuple[Tally, Findings, int]:
    """Run studies until all faults have happened to them; what happened, what is wrong, how many.

    A study that is stuck is left.
    """
    draw, tally, found, undisturbed = random.Random(seed), Tally(), Findings(), Undisturbed()
    number, began = 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        server = None
        if "postgres" in faults:
            from benchmarks.abuse.postgres import Server  # needs a server's binaries

            server = stack.enter_context(Server())
        while faults and (not seconds or time.monotonic() - began < seconds):
            own = folder / f"study-{number}"
            # Alternately, unless what is left is for PostgreSQL alone.
            on_server = server is not None and (number % 2 == 0 or set(faults) == {"postgres"})
            url = server.url if server and on_server else f"sqlite:///{own}/nas.db"
            own.mkdir()
            study = Study(own, url, folder / "cache", seed + number % SEEDS, trials)
            disturber = Disturber(
                study, faults, STUDY_FAULTS, draw, tally, server if on_server else None
            )
            try:
                disturber.run()
                found.add(check(url, study.name, undisturbed))
            except Stuck as error:
                tally.stuck.append(str(error))
            finally:
                study.close()
            number += 1
            say("so far", [f"{len(tally.faults)} faults, {number} studies, {len(faults)} to come"])
    return tally, found, number


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--faults", type=int, default=200)
    command.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--seconds", type=float, default=0.0, help="begin no study after so long")
    options = command.parse_args()
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        command.error(f"unknown kind {sorted(unknown)[0]!r}; known: {', '.join(KINDS)}")
    sys.exit(publish(rows(options.faults, kinds, options.seed, options.seconds), options.json))
