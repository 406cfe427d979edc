"""The designs that were measured at one rung, side by side: what they are and what came of it.

Figures of two rungs do not compare; those of one do.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields

import numpy as np
import pandas as pd

from dashboard.data.reading import Reading
from search_space.contract import Status
from search_space.spec import FFNSpec

ENOUGH = 30  # designs from which on a rung says something of knobs
# What a design's plain form leaves out where it is the usual.
USUAL = {f.name: f.default for f in fields(FFNSpec) if f.default is not MISSING}


@dataclass(frozen=True, kw_only=True)
class AtRung:
    """Designs at a rung.

    flops: the rung's level, in training FLOPs.
    knobs: a row a design, by trial; the knobs in which at least two of them differ, `method` first.
        Missing where a design has no such knob.
    values: the same rows; the study's objectives as measured at this rung (means of seeds), and
        `bits_per_byte`.
    """

    rung: int
    flops: float
    knobs: pd.DataFrame
    values: pd.DataFrame


def rungs_measured(reading: Reading) -> dict[int, int]:
    """Rung -> designs measured there, from the top down."""
    done = _measured(reading)
    counts = done.groupby("rung")["trial"].nunique()
    return {int(rung): int(counts[rung]) for rung in sorted(counts.index, reverse=True)}


def telling_rung(counts: dict[int, int]) -> int:
    """The highest rung with enough designs to say something; else the one with most.

    counts: of `rungs_measured`, not empty.
    """
    enough = [rung for rung, count in counts.items() if count >= ENOUGH]
    return max(enough) if enough else max(counts, key=lambda rung: (counts[rung], rung))


def at_rung(reading: Reading, rung: int) -> AtRung:
    """The designs measured at `rung`."""
    done = _measured(reading)
    done = done[done["rung"] == rung]
    means = done.groupby("trial")[["bits_per_byte", "active_flops"]].mean()
    names = dict.fromkeys(["bits_per_byte", *reading.study.objectives])
    values = reading.trials.loc[means.index, list(names)].astype(float)
    values["bits_per_byte"] = means["bits_per_byte"]
    if "active_flops" in names:
        values["active_flops"] = means["active_flops"].fillna(values["active_flops"])
    return AtRung(
        rung=rung,
        flops=float(done["until_flops"].max()) if len(done) else 0.0,
        knobs=_varied(reading.knobs.loc[means.index]),
        values=values,
    )


def _measured(reading: Reading) -> pd.DataFrame:
    every = reading.evaluations
    finished = every["status"] == Status.FINISHED.value
    measured = np.isfinite(every["bits_per_byte"].to_numpy(dtype=float))
    found: pd.DataFrame = every[finished.to_numpy() & measured]
    return found


def _varied(knobs: pd.DataFrame) -> pd.DataFrame:
    """Only the knobs of which there are two values."""
    found = knobs.copy()
    for name in set(USUAL) & set(found.columns):
        found[name] = found[name].fillna(USUAL[name])
    varied = [name for name in found.columns if found[name].nunique() > 1]
    varied.sort(key=lambda name: name != "method")
    return found[varied]
