"""The frontier as plain data: the rows of `nas pareto`, of the report and of the page's files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas.search.bounds import limits
from nas.search.chances import Chance
from nas.search.objectives import shown_objectives
from nas.search.pareto import frontier
from nas.store import Store, StudyRecord, TrialRecord
from nas.views.certainty import chance_row, frontier_chances, neighbour_words
from nas.views.trial_rows import trial_row

Row = dict[str, Any]


def frontier_rows(store: Store, study: StudyRecord) -> list[Row]:
    """A row a trial of the frontier; no other trial is read but in the columns that are
    compared."""
    bounds, measured = limits(study), store.measures(study.id)  # once: there may be thousands
    known = frontier_chances(store, study, measured, bounds)
    front = [trial.number for trial in frontier(measured, study.objectives, bounds)]
    found = {trial.number: trial for trial in store.some_trials(study.id, front)}
    return [frontier_row(study, found[number], bounds, known[number]) for number in front]


def frontier_row(
    study: StudyRecord, trial: TrialRecord, bounds: Mapping[str, float], chance: Chance | None
) -> Row:
    """A row of `nas pareto`: the mean over seeds, the other objectives, what all studies show.

    bits_per_byte: the mean of the seeds at the rung.
    ±: the first run's standard error over validation windows.
    deviation: of one seed at the top rung; of the mean, that / sqrt(seeds).
    p_frontier, cheaper, dearer: see `nas.views.certainty.chance_row`.
    """
    row = trial_row(trial, bounds)
    costs = [o for o in shown_objectives(study.objectives, "table") if o.name != "bits_per_byte"]
    return {
        "trial": row["number"],
        "design": row["design"],
        "bits_per_byte": row["bits_per_byte"],
        "±": row["bits_per_byte_se"],
        "rung": row["rung"],
        "seeds": row["seeds"],
        "deviation": study.deviation,
        **chance_row(chance),
        **{each.name: row[each.name] for each in costs},
        "source": row["source"],
        "spec": row["spec"],
        "violations": row["violations"],
    }


def to_json(rows: Sequence[Row]) -> str:
    """As `nas pareto --json` prints them."""
    return json.dumps(list(rows), indent=2) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """A line a row: neighbours in words, and the whole design as JSON."""
    flat = []
    for row in rows:
        plain = {}
        for name, value in row.items():
            if name in ("cheaper", "dearer"):
                value = neighbour_words(value)
            plain[name] = json.dumps(value) if isinstance(value, dict) else value
        flat.append(plain)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()
