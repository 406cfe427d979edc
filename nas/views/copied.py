"""Which trials' attention has learnt to copy from the context, for whoever compares them.

Designs of which one copies and another does not yet differ by their attention's luck as well: when
it learns that depends on the seed (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOST = 6  # trials that a note names


class Copied(NamedTuple):
    """A trial's seeds in which attention copies, of all of its seeds; None where unknown."""

    trial: int
    copied: int | None
    seeds: int


def copying_note(trials: Sequence[Copied]) -> str:
    """What to think of where not all runs copy alike; "" where they do, or where it is unknown."""
    known = [each for each in trials if each.copied is not None]
    runs = sum(each.seeds for each in known)
    if sum(each.copied or 0 for each in known) in (0, runs):
        return ""
    words = [f"{each.copied} of {each.seeds} of trial {each.trial}" for each in known[:MOST]]
    more = f", and {len(known) - MOST} more trials" if len(known) > MOST else ""
    return (
        f"attention has learnt to copy from the context in some runs and not yet in others (seeds: "
        f"{', '.join(words)}{more}): part of the differences is its luck, which a longer run or "
        "more seeds even out"
    )
