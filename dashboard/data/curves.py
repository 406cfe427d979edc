"""The curves of the runs that are under way; of each only the points since the last look are read.

Dims: P points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dashboard.data import columns
from dashboard.data.columns import Block
from dashboard.data.derived import Floats
from dashboard.data.reading import Reading
from nas.store import Store

POINTS = 300  # of one curve that are read at a look: a page is not much wider
KEPT = 4 * POINTS  # of one curve that are kept; then every second one goes
RECENT = 5  # points that a rate is measured over
_KINDS: Mapping[str, columns.Kind] = {
    "step": "int",
    "steps": "int",
    "flops": "float",
    "loss": "float",
    "seconds": "float",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """The points (P,) of an evaluation, by step; the columns are those of `Progress`."""

    points: Block

    def __len__(self) -> int:
        return len(self.points["step"])

    def last(self, name: str) -> float:
        """The newest point's value; only with a point."""
        return float(self.points[name][-1])

    @property
    def rate(self) -> float | None:
        """Training FLOPs a second, over the newest points; None before there are two."""
        flops, seconds = (self.points[name][-RECENT:] for name in ("flops", "seconds"))
        # A run that another worker took up counts its seconds anew.
        fresh = int(np.argmin(seconds)) if len(seconds) else 0
        took = seconds[-1] - seconds[fresh] if len(seconds) else 0.0
        return float((flops[-1] - flops[fresh]) / took) if took > 0 else None


class Curves:
    """Follows the runs that are under way. Not safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[int, Curve] = {}

    def read(self, store: Store, reading: Reading) -> dict[int, Curve]:
        """By evaluation, of those that run and of the lower rungs of their runs."""
        running = reading.running
        runs = set(zip(running["trial"].tolist(), running["seed"].tolist(), strict=True))
        if not runs:
            self._known = {}
            return {}
        alike = reading.evaluations[reading.evaluations["trial"].isin(running["trial"])]
        wanted = [
            id
            for id, trial, seed in zip(alike.index, alike["trial"], alike["seed"], strict=True)
            if (trial, seed) in runs
        ]
        live = set(running.index)
        # What a lower rung trained is read once.
        asked = {id: self._seen(id) for id in wanted if id in live or id not in self._known}
        more = store.curve_columns(asked, POINTS)
        self._known = {id: self._with(id, more.get(id)) for id in wanted}
        return dict(self._known)

    def _seen(self, id: int) -> int:
        """The step of its newest point that is known; -1 without any."""
        known = self._known.get(id)
        return int(known.last("step")) if known is not None and len(known) else -1

    def _with(self, id: int, more: Mapping[str, object] | None) -> Curve:
        before = self._known.get(id)
        if more is None:
            assert before is not None
            return before
        new = columns.block(more, _KINDS)  # type: ignore[arg-type]
        if before is None:
            return Curve(new)
        if not len(new["step"]):
            return before
        points = {name: np.concatenate([before.points[name], new[name]]) for name in new}
        if len(points["step"]) > KEPT:
            last = len(points["step"]) - 1
            keep = np.arange(len(points["step"]))
            points = columns.rows(points, (keep % 2 == last % 2) | (keep == 0))
        return Curve(points)


def best_rate(evaluations: Block | Mapping[str, Floats]) -> float | None:
    """The training FLOPs a second that the study's quickest evaluations reached.

    evaluations: columns of those that finished at their first attempt: an evaluation that was taken
        up again has the seconds of its last attempt alone. The quickest twentieth is left out: a
        clock that jumped would stand for the machine.
    """
    seconds, flops = (np.asarray(evaluations[name], dtype=float) for name in ("seconds", "flops"))
    fit = (seconds > 0) & (flops > 0)
    if not fit.any():
        return None
    return float(np.quantile(flops[fit] / seconds[fit], 0.95))
