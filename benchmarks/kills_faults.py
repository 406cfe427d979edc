"""Faults: processes of a running study that are killed at random moments."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from benchmarks.kills_study import ACTOR, LIMIT_SECONDS, Stand, Study
from nas.running.driver import MOST_LOSSES

if TYPE_CHECKING:
    from benchmarks.abuse.postgres import Server

KINDS = ("driver", "worker", "raylet", "gcs", "postgres")
ENDING = ("driver", "raylet", "gcs")  # those that a driver does not outlive
TITLES = {"worker": ACTOR, "raylet": "raylet", "gcs": "gcs_server"}
HASTE = 0.25  # the share of faults that do not wait until the study works again
PAUSE_SECONDS = 3.0  # at most, between a study that works again and the next fault
OUTAGE_SECONDS = 6.0  # of PostgreSQL, at most; the product bears 60


def plan(count: int, kinds: Iterable[str], draw: random.Random) -> list[str]:
    """So many faults: rounds in which each kind comes once, each in a random order."""
    names, faults = list(kinds), list[str]()
    while len(faults) < count:
        draw.shuffle(names)
        faults += names
    return faults[:count]


@dataclass
class Tally:
    """What happened to studies.

    faults: kinds, in their order.
    recoveries: kind and seconds from a fault until the study got on again.
    stuck: what was waited for in vain.
    endings: drivers that ended though no fault of theirs ends one.
    """

    faults: list[str] = field(default_factory=list)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)


class Disturber:
    """Runs one study to its end, with faults on the way.

    faults: the kinds that are still to come, of all studies; those that were done are taken off.
    most: faults of this study.
    server: that of its database, where it is PostgreSQL.
    """

    def __init__(
        self,
        study: Study,
        faults: list[str],
        most: int,
        draw: random.Random,
        tally: Tally,
        server: Server | None,
    ) -> None:
        self.study, self.faults, self.most, self.draw = study, faults, most, draw
        self.tally, self.server, self.done = tally, server, 0
        self.waiting: tuple[str, float, dict[int, Stand]] | None = None  # for a recovery

    def run(self) -> None:
        """Until the study is finished. Raises Stuck."""
        self.study.start()
        while True:
            if self.study.exit_code() is not None:
                if self._ended():
                    return
                self.study.start()
            self._let_work()
            kind = self._next_kind()
            if kind is None:
                self.study.wait(self._driver_ended, "end of the study", ended=True)
            elif self.study.exit_code() is None:
                self._inject(kind)
            else:
                self.faults.insert(0, kind)  # another study's, where the driver has ended

    def _driver_ended(self) -> bool:
        return self.study.exit_code() is not None

    def _ended(self) -> bool:
        """Whether the driver that ended has finished the study."""
        study = self.study
        study.end(LIMIT_SECONDS)
        if study.exit_code() == 0:
            self._recovered()
            return True
        # None of the faults since its start lets a driver end: those that do are waited for.
        self.tally.endings.append(f"{study.name}: exit code {study.exit_code()}: {study.said()}")
        return False

    # One fault.

    def _next_kind(self) -> str | None:
        """The next that can happen to this study, taken off the list; None for none."""
        if self.done >= self.most:
            return None
        for place, kind in enumerate(self.faults):
            if self._possible(kind):
                return self.faults.pop(place)
        return None

    def _possible(self, kind: str) -> bool:
        if kind == "postgres":
            return self.server is not None
        if kind == "worker":
            # One more would, as it should, set the design aside as one that kills workers.
            return all(stand.losses < MOST_LOSSES - 1 for stand in self.study.stands().values())
        return True

    def _let_work(self) -> None:
        """Wait for the moment of the next fault: mostly until the study works again."""
        study = self.study
        if self.waiting is None or self.draw.random() >= HASTE:
            study.wait(self._works, "progress")
            self._recovered()
        time.sleep(self.draw.uniform(0, PAUSE_SECONDS))

    def _works(self) -> bool:
        now = self.study.stands()
        if self.waiting is None:
            return any(stand.points for stand in now.values())
        kind, _, before = self.waiting
        again = [id for id, stand in now.items() if _got_on(stand, before.get(id))]
        if kind != "worker":
            return bool(again)
        # The other worker never stopped: what counts is the evaluation that lost its own.
        return any(now[id].attempt > _attempt(before.get(id)) for id in again)

    def _recovered(self) -> None:
        if self.waiting is not None:
            kind, began, _ = self.waiting
            self.tally.recoveries.append((kind, time.monotonic() - began))
            self.waiting = None

    def _inject(self, kind: str) -> None:
        """Do it, and begin to wait for the study to recover."""
        before = self._do(kind)
        if before is None:
            self.faults.insert(0, kind)  # the driver ended before
            return
        self.done += 1
        self.tally.faults.append(kind)
        began = time.monotonic()
        if kind in ENDING:
            self.study.wait(self._driver_ended, f"end after {kind}", ended=True)
            self.study.end(LIMIT_SECONDS)
            if self.study.exit_code() == 0:
                return  # it had just finished
            self.waiting = kind, began, self.study.stands()
            self.study.start()
        elif kind == "postgres":
            self._outage()
            self.waiting = kind, began, self.study.stands()
        else:
            self.waiting = kind, began, before

    def _do(self, kind: str) -> dict[int, Stand] | None:
        """Where the evaluations stood just before; None when there was no process to kill."""
        study = self.study
        if kind == "driver":
            study.command.process.kill()
            return {}
        if kind == "postgres":
            # While it starts, a driver does not wait for a database: it says that there is none.
            return {} if study.wait(study.held, "driver that holds the study") else None
        title = TITLES[kind]
        if not study.wait(lambda: bool(study.processes(title)), title):
            return None
        before = study.stands()
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self.draw.choice(study.processes(title)).kill()
            return before
        return None

    def _outage(self) -> None:
        assert self.server is not None
        self.server.stop()
        time.sleep(self.draw.uniform(0, OUTAGE_SECONDS))
        self.server.start()


def _attempt(before: Stand | None) -> int:
    return 1 if before is None else before.attempt


def _got_on(now: Stand, before: Stand | None) -> bool:
    """Whether an evaluation has a point or an ending that it had not."""
    ended = now.status not in ("running", "stopped")
    if before is None:
        return now.points > 0 or ended
    return now.points > before.points or (ended and now.status != before.status)
