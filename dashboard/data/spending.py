"""Where a study's training FLOPs went."""

from __future__ import annotations

import pandas as pd

from dashboard.data.reading import Reading
from search_space.contract import FAILURES, Status

MOST = 10  # groups that are told apart; the smaller ones are one
OTHERS = "others"
MEASURED, FAILED, OPEN = "measured", "failed", "stopped or running"
OUTCOMES = (MEASURED, FAILED, OPEN)
WAYS = {  # column of `spending` -> what it is for people
    "method": "Method",
    "rung": "Rung",
    "source": "Proposed by",
    "standing": "Where the design stands",
}
FRONT, TOP, BELOW, BROKEN = "on the frontier", "behind it", "below the top rung", "failed"


def spending(reading: Reading) -> dict[str, pd.DataFrame]:
    """For each of `WAYS` the training FLOPs, a row a group, the dearest first (rungs in order).

    Columns: one each of `OUTCOMES`, what the evaluations came to that the FLOPs were charged for.
    """
    every, trials = reading.evaluations, reading.trials
    status = every["status"]
    outcome = pd.Series(OPEN, index=every.index).mask(status == Status.FINISHED.value, MEASURED)
    outcome = outcome.mask(status.isin([each.value for each in FAILURES]), FAILED)
    groups = {
        "method": every["trial"].map(trials["method"]),
        "rung": "rung " + every["rung"].astype(str),
        "source": every["trial"].map(trials["source"]),
        "standing": every["trial"].map(_standing(trials)),
    }
    return {way: _table(every["flops"], groups[way], outcome, way == "rung") for way in WAYS}


def _standing(trials: pd.DataFrame) -> pd.Series:
    finished = trials["status"] == Status.FINISHED.value
    found = pd.Series(BELOW, index=trials.index).mask(finished, TOP)
    found = found.mask(trials["status"].isin([each.value for each in FAILURES]), BROKEN)
    return found.mask(trials["frontier"], FRONT)


def _table(flops: pd.Series, groups: pd.Series, outcome: pd.Series, in_order: bool) -> pd.DataFrame:
    found = flops.groupby([groups.to_numpy(), outcome.to_numpy()]).sum().unstack(fill_value=0)
    found = found.reindex(columns=list(OUTCOMES), fill_value=0.0)
    if in_order:
        return found.sort_index(key=lambda names: names.str[5:].astype(int))
    found = found.loc[found.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    if len(found) <= MOST:
        return found
    rest = found.iloc[MOST - 1 :].sum().rename(f"{len(found) - MOST + 1} {OTHERS}")
    return pd.concat([found.iloc[: MOST - 1], rest.to_frame().T])
