"""Whether the rungs picked the right designs: where each stood at a rung, and where at the top.

Only designs that reached the top can tell: how good the others would have become, nobody knows. So
a rung that dropped a good design does not show here, and among those that all did well the order is
harder to keep than among all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard.data.at_rung import at_rung, rungs_measured
from dashboard.data.reading import Reading

LEAST = 5  # designs at a rung and at the top below which nothing is said
REDUCTION = 3.0  # of a study that does not say


@dataclass(frozen=True, kw_only=True)
class Promotions:
    """Of each rung below the top, what came of the designs that went on to the top.

    table: a row a rung. Columns: rung, flops (its level), designs (measured there and at the top),
        rho (Spearman's, of bits per byte there and at the top), low, high (its 95% interval), kept
        (how many the rung's rule would have kept of these alone), front (of these, on the study's
        frontier now), front_kept (share of them that the rung would have kept). Missing where
        too few designs tell.
    pairs: a row a design and rung. Columns: rung, trial, method, at_rung, at_top (places by bits
        per byte among these designs, 1 is the best), frontier.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame


def promotions(reading: Reading) -> Promotions:
    """How well each rung foretold the top."""
    top = reading.study.top
    budget = reading.study.config.get("budget") or {}
    reduction = float(budget.get("reduction") or REDUCTION)
    finish = at_rung(reading, top).values
    front = set(reading.front)
    table, pairs = [], []
    for rung in sorted(set(rungs_measured(reading)) - {top}):
        there = at_rung(reading, rung)
        both = there.values.index.intersection(finish.index)
        early, late = there.values.loc[both], finish.loc[both]
        row: dict[str, float] = {"rung": rung, "flops": there.flops, "designs": len(both)}
        if len(both) >= LEAST:
            kept = max(int(len(both) / reduction), 1)
            best = set(both[_order(early[reading.study.objectives], early["bits_per_byte"])[:kept]])
            mine = front & set(both)
            row |= _correlation(early["bits_per_byte"], late["bits_per_byte"])
            row |= {"kept": kept, "front": len(mine)}
            row["front_kept"] = len(mine & best) / len(mine) if mine else math.nan
            pairs.append(
                pd.DataFrame(
                    {
                        "rung": rung,
                        "trial": both.to_numpy(),
                        "method": reading.trials.loc[both, "method"].to_numpy(),
                        "at_rung": early["bits_per_byte"].rank(method="first").to_numpy(),
                        "at_top": late["bits_per_byte"].rank(method="first").to_numpy(),
                        "frontier": both.isin(list(front)),
                    }
                )
            )
        table.append(row)
    columns = ["rung", "flops", "designs", "rho", "low", "high", "kept", "front", "front_kept"]
    none = pd.DataFrame(columns=["rung", "trial", "method", "at_rung", "at_top", "frontier"])
    return Promotions(
        table=pd.DataFrame(table, columns=columns),
        pairs=pd.concat(pairs, ignore_index=True) if pairs else none,
    )


def _order(objectives: pd.DataFrame, bits: pd.Series) -> npt.NDArray[np.int64]:
    """Places of the designs, the best first: front by front, in a front by bits per byte."""
    import moocore

    values = objectives.to_numpy(dtype=float)
    fronts = moocore.pareto_rank(values) if values.shape[1] > 1 else values[:, 0]
    return np.lexsort((bits.to_numpy(), fronts))


def _correlation(early: pd.Series, late: pd.Series) -> dict[str, float]:
    """Spearman's rho and its 95% interval (Fisher's z; the error after Bonett and Wright 2000)."""
    rho = float(np.corrcoef(early.rank(), late.rank())[0, 1])
    if len(early) < 4 or not abs(rho) < 1:
        return {"rho": rho, "low": rho, "high": rho}
    error = 1.96 * math.sqrt((1 + rho**2 / 2) / (len(early) - 3))
    middle = math.atanh(rho)
    return {"rho": rho, "low": math.tanh(middle - error), "high": math.tanh(middle + error)}
