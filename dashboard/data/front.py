"""The frontier of a study, kept while its trials are added and measured.

Dims: N feasible trials, M objectives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.search.pareto import non_dominated

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Front:
    """Which of the trials no other is better than.

    A trial that comes to be measured is compared with the frontier alone. Only when one leaves the
    frontier without being beaten (a further seed changed its mean, or it breaks a bound now) can
    dominated ones come back, and all are compared again.
    """

    def __init__(self) -> None:
        self._numbers: Ints = np.zeros(0, dtype=np.int64)
        self._values: Floats = np.zeros((0, 0))
        self._front: Ints = np.zeros(0, dtype=np.int64)
        self.compared = 0  # trials at the last update

    def update(self, numbers_N: Ints, values_NM: Floats) -> Ints:
        """The frontier's numbers, ascending.

        numbers_N: of all feasible trials, ascending.
        values_NM: theirs, finite.
        """
        new_N, gone = self._changes(numbers_N, values_NM)
        if gone:
            new_N[:] = True
        else:
            new_N |= np.isin(numbers_N, self._front)
        self.compared = int(new_N.sum())
        kept = non_dominated(values_NM[new_N].tolist())
        self._front = numbers_N[new_N][np.array(kept, dtype=bool)]
        self._numbers, self._values = numbers_N, values_NM
        return self._front

    def _changes(self, numbers_N: Ints, values_NM: Floats) -> tuple[npt.NDArray[np.bool_], bool]:
        """Which trials (N,) are new or have other values, and whether the frontier lost one."""
        place = np.searchsorted(self._numbers, numbers_N)
        known = place < len(self._numbers)
        known[known] = self._numbers[place[known]] == numbers_N[known]
        same = known.copy()
        if known.any():
            same[known] = (self._values[place[known]] == values_NM[known]).all(axis=1)
        gone = ~np.isin(self._front, numbers_N[same])
        return ~same, bool(gone.any())
