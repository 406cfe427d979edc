"""Several trials side by side: what they differ in, a row a knob or a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dashboard.data.detail import COSTS, evaluations_of, knob_words
from dashboard.data.reading import Reading
from dashboard.data.source import Source
from nas.store import EvaluationRecord, TrialRecord
from nas.views.style import si

ABSENT = "-"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the compared trials: what there is to show of it.

    knobs, figures: words by name.
    """

    trial: TrialRecord
    evaluations: Sequence[EvaluationRecord]
    knobs: Mapping[str, str]
    figures: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its column's head."""
        return f"#{self.trial.number}"


def sides(reading: Reading, source: Source, numbers: Sequence[int]) -> list[Side]:
    """The trials of these numbers, in this order."""
    found = []
    for number in numbers:
        trial = source.trial(reading.study.id, number)
        found.append(
            Side(
                trial=trial,
                evaluations=evaluations_of(reading, number),
                knobs=_knobs(trial),
                figures=_figures(reading, trial),
            )
        )
    return found


def differences(found: Sequence[Side], rows: str) -> pd.DataFrame:
    """A row a knob (`rows` "knobs") or a figure ("figures") of any of them: `differs` is ≠ where
    not all are alike, `what` its name, then a column a trial."""
    by_side = [getattr(side, rows) for side in found]
    names = list(dict.fromkeys(name for own in by_side for name in own))
    out = []
    for name in names:
        values = [own.get(name, ABSENT) for own in by_side]
        mark = "≠" if len(set(values)) > 1 else ""
        out.append([mark, name, *values])
    return pd.DataFrame(out, columns=["differs", "what", *(side.name for side in found)])


def _knobs(trial: TrialRecord) -> dict[str, str]:
    plain = trial.spec.to_dict()
    selection = dict(plain.pop("selection"))
    words = {"method": str(selection.pop("method"))}
    words |= {name: knob_words(value) for name, value in plain.items()}
    words["experts"] = f"{trial.spec.n_experts:,}"
    words["experts a token reads"] = f"{trial.spec.granularity:,.3g}"
    return words | {f"· {name}": knob_words(value) for name, value in selection.items()}


def _figures(reading: Reading, trial: TrialRecord) -> dict[str, str]:
    row = reading.trials.loc[trial.number]
    words = {"status": trial.status.value, "proposed by": trial.source}
    if trial.bits_per_byte is not None:
        error = f" ± {row['noise']:.4f}" if pd.notna(row["noise"]) else ""
        words["Bits per byte"] = f"{trial.bits_per_byte:.4f}{error}"
    if trial.rung is not None and reading.study.rungs > 1:
        words["rung"] = str(trial.rung)
    words["seeds"] = str(trial.seeds)
    if pd.notna(row["p_frontier"]):
        words["P(on the frontier)"] = f"{row['p_frontier']:.2f}"
    if trial.active_flops is not None:
        words["Active FLOPs, measured"] = si(trial.active_flops)
    words |= {
        title: si(trial.cost[name]) for name, (title, _) in COSTS.items() if name in trial.cost
    }
    words["FLOPs spent"] = si(trial.flops)
    return words
