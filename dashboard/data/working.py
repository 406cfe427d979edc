"""What a study is doing: a row an evaluation under way, the queue, what ended of late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dashboard.data.columns import instants
from dashboard.data.curves import Curve, best_rate
from dashboard.data.reading import Reading
from search_space.contract import Status

ENDINGS = 12  # that are shown
_WORDS = {
    Status.FINISHED: "measured",
    Status.DIVERGED: "diverged",
    Status.OUT_OF_MEMORY: "out of memory",
    Status.FAILED: "failed",
    Status.STOPPED: "stopped, can be taken up again",
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """A study at work.

    running: a row an evaluation under way. Columns: trial, design, method, rung, seed, id, step,
        steps, done (share of its steps), loss, rate (FLOP/s), share (of `best`), attempt.
    waiting: evaluations that were stopped and wait to be taken up.
    rate: FLOP/s of all that run; None while nothing is known of any.
    best: FLOP/s of one evaluation that the study's quickest reached; None before one has finished.
    """

    running: pd.DataFrame
    waiting: int
    rate: float | None
    best: float | None


def work(reading: Reading, curves: Mapping[int, Curve], best: float | None) -> Work:
    """The study at work.

    best: `quickest`.
    """
    rows = [
        _row(reading, int(str(id)), row, curves.get(int(str(id))), best)
        for id, row in reading.running.iterrows()
    ]
    names = (
        *("trial", "design", "method", "rung", "seed", "id", "step", "steps", "done"),
        *("loss", "rate", "share", "attempt"),
    )
    running = pd.DataFrame(rows, columns=list(names))
    rates = running["rate"].dropna()
    return Work(
        running=running,
        waiting=reading.waiting,
        rate=float(rates.sum()) if len(rates) else None,
        best=best,
    )


def quickest(reading: Reading) -> float | None:
    """See `best_rate`."""
    done = reading.evaluations
    done = done[(done["status"] == Status.FINISHED.value) & (done["attempt"] == 1)]
    return best_rate({name: done[name].to_numpy(dtype=float) for name in ("seconds", "flops")})


def _row(
    reading: Reading, id: int, row: pd.Series, curve: Curve | None, best: float | None
) -> dict[str, object]:
    known = curve is not None and len(curve) > 0
    rate = curve.rate if curve is not None else None
    step, steps = (curve.last(name) if known and curve else None for name in ("step", "steps"))
    return {
        "trial": int(row["trial"]),
        "design": reading.trials.at[row["trial"], "design"],
        "method": reading.trials.at[row["trial"], "method"],
        "rung": int(row["rung"]),
        "seed": int(row["seed"]),
        "id": id,
        "step": step,
        "steps": steps,
        "done": min(1.0, step / steps) if step is not None and steps else 0.0,
        "loss": curve.last("loss") if known and curve else None,
        "rate": rate,
        "share": rate / best if rate is not None and best else None,
        "attempt": int(row["attempt"]),
    }


def endings(reading: Reading, most: int = ENDINGS) -> pd.DataFrame:
    """The newest endings first. Columns: ended (time), trial, design, rung, seed, outcome (in
    words), bits_per_byte, error."""
    ended, running = reading.evaluations["ended_at"], set(reading.running.index)
    # One that was stopped and taken up again runs, and may have the time of its stop.
    newest = np.argsort(instants(ended), kind="stable")[::-1]
    newest = newest[: most + len(running) + int(ended.isna().sum())]  # missing times come first
    over = reading.evaluations.iloc[newest]
    over = over[over["ended_at"].notna() & ~over.index.isin(running)].iloc[:most]
    return pd.DataFrame(
        {
            "ended": over["ended_at"].array,
            "trial": over["trial"].to_numpy(),
            "design": reading.trials["design"].reindex(over["trial"]).to_numpy(),
            "rung": over["rung"].to_numpy(),
            "seed": over["seed"].to_numpy(),
            "outcome": [_WORDS[Status(each)] for each in over["status"]],
            "bits_per_byte": over["bits_per_byte"].to_numpy(),
            "error": over["error"].to_numpy(),
        }
    )
