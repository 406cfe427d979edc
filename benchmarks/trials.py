"""Trials in processes of one thread each, remembered in a file so that a cut run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_space.contract import EvalRequest, Progress, Status
from search_space.errors import InputError
from workers.evaluate import evaluate

UNIT = "bits per byte"


@dataclass(frozen=True)
class Trial:
    """A preset and the request that trains it."""

    preset: str
    request: EvalRequest

    @property
    def key(self) -> dict[str, Any]:
        """What names the trial in a state file; the digest is of all else that decides it."""
        request = self.request
        decisive = {
            "spec": request.spec.to_dict(),
            "backbone": request.backbone.to_dict(),
            "recipe": request.recipe.to_dict(),
            "corpus": Path(request.corpus_dir).name,
            "eval_tokens": request.eval_tokens,
        }
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        flops = float(request.train_flops)
        return {"preset": self.preset, "seed": request.seed, "flops": flops, "digest": digest}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended. seconds: of training alone.  error: one line where it did not finish.
    active_flops: a token, with the measured activity.  code: the commit that trained it."""

    status: Status
    error: str = ""
    bits_per_byte: float | None = None
    active_flops: float = 0.0
    seconds: float = 0.0
    code: str = ""

    def line(self) -> str:
        """The outcome in words."""
        if self.bits_per_byte is None:
            return f"{self.status}: {self.error}"
        return f"{self.bits_per_byte:.4f} {UNIT}, {self.seconds:.0f} s"


class State:
    """The finished trials of a folder, a JSON line each; for one run at a time.

    A trial that did not finish is not kept, so the next run tries it again. The code is no part
    of a trial's key: its commit is kept beside, and `rows` counts how many there are. Without a
    folder nothing is read or written. InputError for a folder or a file that cannot be used.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = folder / "trials.jsonl" if folder else None
        self.outcomes: dict[str, Outcome] = {}
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            for line in self.file.read_text().splitlines() if self.file.exists() else []:
                record = json.loads(line)
                kept = record["outcome"] | {"status": Status(record["outcome"]["status"])}
                self.outcomes[json.dumps(record["trial"])] = Outcome(**kept)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"state: cannot use {str(self.file)!r}: {type(error).__name__}: {error}; "
                "give another folder"
            ) from None

    def find(self, trial: Trial) -> Outcome | None:
        """How the trial ended in an earlier run, None if it has not."""
        return self.outcomes.get(json.dumps(trial.key))

    def keep(self, trial: Trial, outcome: Outcome) -> None:
        """Write a finished trial."""
        if self.file is None or outcome.status is not Status.FINISHED:
            return
        self.outcomes[json.dumps(trial.key)] = outcome
        # Written whole and renamed: a run that is killed here leaves no half a line.
        partial = self.file.with_suffix(".partial")
        partial.write_text(
            "".join(
                json.dumps({"trial": json.loads(key), "outcome": dataclasses.asdict(kept)}) + "\n"
                for key, kept in self.outcomes.items()
            )
        )
        os.replace(partial, self.file)


Ended = Callable[[Trial, Outcome], None]


def run_trials(waiting: deque[Trial], workers: int, ended: Ended) -> None:
    """Run all of `waiting` in processes; one that dies fails only the trials of that moment."""
    while waiting:
        with ProcessPoolExecutor(
            min(workers, len(waiting)), multiprocessing.get_context("spawn"), follow_parent
        ) as pool:
            _fill(pool, workers, waiting, ended)


def _fill(pool: ProcessPoolExecutor, workers: int, waiting: deque[Trial], ended: Ended) -> None:
    """Keep the pool busy until nothing waits or it breaks."""
    running: dict[Future[Outcome], Trial] = {}
    broken = False
    while running or (waiting and not broken):
        # No more than run at once, so that a broken pool takes no others with it.
        while waiting and len(running) < workers and not broken:
            try:
                running[pool.submit(train, waiting[0].request)] = waiting[0]
                waiting.popleft()
            except BrokenProcessPool:
                broken = True
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            try:
                outcome = future.result()
            except BrokenProcessPool:
                broken = True
                text = "a worker process died, maybe for lack of memory; give fewer --workers"
                outcome = Outcome(status=Status.FAILED, error=text)
            ended(running.pop(future), outcome)


def follow_parent() -> None:
    """End this worker process with the one that started it, and at Ctrl-C without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train(request: EvalRequest) -> Outcome:
    """One trial, in a worker process."""
    training_seconds = [0.0]

    def note(progress: Progress) -> None:
        training_seconds.append(progress.seconds)

    result = evaluate(request, note)
    return Outcome(
        status=result.status,
        error=result.error,
        bits_per_byte=result.bits_per_byte,
        active_flops=result.active_flops or 0.0,
        seconds=training_seconds[-1],
    )
