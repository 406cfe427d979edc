"""How sure a study's frontier is, read from the store, and the same as columns of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.search.chances import Chance, chances, rivals
from nas.search.objectives import Measured
from nas.search.paired import Difference, measurements
from nas.search.seeds import seed_noise
from nas.store import Store, StudyRecord

__all__ = ["Chance", "chance_row", "frontier_chances", "neighbour_words"]


def frontier_chances(
    store: Store, study: StudyRecord, trials: Sequence[Measured], bounds: Mapping[str, float]
) -> dict[int, Chance]:
    """By number, the chances of the trials on the study's frontier and near it.

    trials: all of the study's.
    bounds: its upper bounds by objective.
    The windows are read of these trials alone.
    """
    noise = seed_noise(store.repeated_runs(study.id, study.top))
    found = rivals(trials, study.objectives, bounds, noise)
    runs = store.measured_runs(study.id, found.numbers_K, study.top)
    return chances(found, measurements(runs), noise)


def chance_row(chance: Chance | None) -> dict[str, Any]:
    """A trial's chance as plain values; None for a trial far from the frontier, or unmeasured.

    p_frontier: the probability of being on the frontier.
    cheaper, dearer: {"trial", "difference", "error"} of the frontier's neighbours: this trial's
        bits per byte less theirs, and its standard error.
    copied: in how many seeds attention has learnt to copy; None where that was not measured.
    """
    if chance is None:
        return {"p_frontier": None, "cheaper": None, "dearer": None, "copied": None}
    return {
        "p_frontier": chance.probability,
        "cheaper": _neighbour(chance.cheaper),
        "dearer": _neighbour(chance.dearer),
        "copied": chance.copied,
    }


def _neighbour(beside: tuple[int, Difference] | None) -> dict[str, Any] | None:
    if beside is None:
        return None
    number, gap = beside
    return {"trial": number, "difference": gap.value, "error": gap.error}


def neighbour_words(neighbour: Mapping[str, Any] | None) -> str | None:
    """A neighbour of `chance_row` for people: `-0.0120 ± 0.0044 (#3)`."""
    if neighbour is None:
        return None
    return f"{neighbour['difference']:+.4f} ± {neighbour['error']:.4f} (#{neighbour['trial']})"
