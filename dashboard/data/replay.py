"""A study as it stood after some of its evaluations had ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from dashboard.data.history import endings
from dashboard.data.reading import Reading
from nas.search.bounds import ROUNDING, words
from nas.search.pareto import non_dominated
from search_space.contract import Status

RUNNING, STOPPED, PAUSED, FINISHED = (
    status.value for status in (Status.RUNNING, Status.STOPPED, Status.PAUSED, Status.FINISHED)
)


def replayed(reading: Reading, n: int) -> Reading:
    """The reading as it was when `n` of its evaluations had ended, from 0 to `endings`.

    With all of them it is the reading itself. Before that it has the trials and evaluations that
    had begun; what had not ended counts as running. Of the trials, status, rung, seeds, measures,
    noise, FLOPs, seconds, error, infeasible and frontier are those of then; nobody computed then
    how likely each was on the front: p_frontier and vs_cheaper are missing, chances are empty.
    """
    over = endings(reading)
    if n >= len(over):
        return reading
    over = over.iloc[: max(n, 0)]
    evaluations = _then(reading.evaluations, over)
    trials = _trials(reading, evaluations)
    ledger = replace(
        reading.ledger,
        reserved=float(evaluations["reserved"].sum()),
        spent=float(over["flops"].sum()),
    )
    return replace(
        reading,
        trials=trials,
        evaluations=evaluations,
        ledger=ledger,
        chances={},
        stamp=(*reading.stamp, "replayed", n),
    )


def _then(evaluations: pd.DataFrame, over: pd.DataFrame) -> pd.DataFrame:
    """Those that had begun by the last ending; the others than `over` ran."""
    if over.empty:
        return evaluations.iloc[:0]
    begun = evaluations["created_at"] <= over["ended_at"].iloc[-1]
    ended = evaluations.index.isin(over.index)
    found: pd.DataFrame = evaluations[begun.to_numpy() | ended].copy()
    running = ~found.index.isin(over.index)
    found.loc[running, "status"] = RUNNING
    found.loc[running, ["bits_per_byte", "bits_per_byte_se", "active_flops"]] = np.nan
    found.loc[running, ["flops", "seconds"]] = 0.0
    found.loc[running, "error"] = ""
    found.loc[running, "ended_at"] = pd.NaT
    found.loc[running, "reserved"] = found["until_flops"] - found["start_flops"]
    return found


def _trials(reading: Reading, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Where each trial stood, as `nas.store` would have said."""
    by_trial = evaluations.groupby("trial")
    numbers = np.sort(evaluations["trial"].unique())
    found = reading.trials.reindex(numbers)
    first = by_trial["seed"].first()  # evaluations are in the order in which they began
    mine = evaluations[evaluations["seed"] == evaluations["trial"].map(first)]
    finished = evaluations["status"] == FINISHED
    rung = mine[mine["status"] == FINISHED].groupby("trial")["rung"].max()
    peers = evaluations[finished & (evaluations["rung"] == evaluations["trial"].map(rung))]
    means = peers.groupby("trial")[["bits_per_byte", "active_flops"]].mean().reindex(numbers)

    found["status"] = _status(mine, reading.study.top).reindex(numbers)
    found["rung"] = rung.reindex(numbers).astype("Int64")
    found["seeds"] = peers.groupby("trial").size().reindex(numbers, fill_value=0)
    found["bits_per_byte"] = means["bits_per_byte"]
    found["active_flops"] = means["active_flops"].fillna(found["active_flops"])
    shown = _shown(mine).reindex(numbers)
    found["bits_per_byte_se"] = shown["bits_per_byte_se"]
    found["error"] = shown["error"].fillna("")
    found["flops_spent"] = by_trial["flops"].sum()
    found["seconds"] = by_trial["seconds"].sum()
    found.loc[shown["status"].isna(), ["flops_spent", "seconds"]] = np.nan
    found["noise"] = _noise(reading, found)
    found["p_frontier"] = np.nan
    found["vs_cheaper"] = pd.Series(index=found.index, dtype=found["vs_cheaper"].dtype)
    found["infeasible"] = _infeasible(reading, found)
    found["frontier"] = _frontier(reading, found)
    return found


def _shown(mine: pd.DataFrame) -> pd.DataFrame:
    """By trial, the evaluation whose ending is the trial's: the last that has one, or stopped."""
    ended = mine[mine["status"] != RUNNING]
    ended = ended.assign(final=ended["status"] != STOPPED)
    ended = ended.sort_values(["trial", "final", "rung"], kind="stable")
    # `last` of a group would fill what is missing from the rows before.
    return ended.drop_duplicates("trial", keep="last").set_index("trial")


def _status(mine: pd.DataFrame, top: int) -> pd.Series[str]:
    """Of each trial's first run, its evaluations by rung."""
    ordered = mine.sort_values(["trial", "rung"], kind="stable")
    last = ordered.groupby("trial")[["status", "rung"]].last()
    status = last["status"].mask((last["status"] == FINISHED) & (last["rung"] < top), PAUSED)
    for word in (STOPPED, RUNNING):
        some = ordered.loc[ordered["status"] == word, "trial"].unique()
        status = status.mask(status.index.isin(some), word)
    return status


def _noise(reading: Reading, trials: pd.DataFrame) -> pd.Series[float]:
    """As `nas.views.noise` has it; the deviation of a seed is the one that is known today."""
    windows = trials["bits_per_byte_se"].where(trials["bits_per_byte"].notna())
    deviation, at_top = reading.study.deviation, trials["rung"] == reading.study.top
    if deviation is None:
        return windows
    return windows.mask(at_top.fillna(False).astype(bool), deviation / np.sqrt(trials["seeds"]))


def _infeasible(reading: Reading, trials: pd.DataFrame) -> pd.Series[str]:
    """Which bounds a finished trial breaks, in words."""
    names = list(reading.bounds)
    finished = trials[trials["status"] == FINISHED]
    over = finished[names] / pd.Series(reading.bounds) - 1 if names else finished[names]
    broken = over[(over > ROUNDING).any(axis=1)]
    texts = {
        number: words({name: row[name] for name in names if row[name] > ROUNDING})
        for number, row in broken.to_dict("index").items()
    }
    return pd.Series("", index=trials.index, dtype=str).mask(
        trials.index.isin(list(texts)), pd.Series(texts, dtype=str).reindex(trials.index)
    )


def _frontier(reading: Reading, trials: pd.DataFrame) -> pd.Series[bool]:
    values = trials[list(reading.study.objectives)].to_numpy(dtype=float)
    kept = (trials["status"] == FINISHED) & (trials["infeasible"] == "")
    rows = np.flatnonzero(kept.to_numpy() & np.isfinite(values).all(axis=1))
    front = np.zeros(len(trials), dtype=bool)
    front[rows] = non_dominated(values[rows])
    return pd.Series(front, index=trials.index, dtype=bool)
