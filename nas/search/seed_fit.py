"""The fit of `nas.search.seeds` over whole columns, for studies with hundreds of repeated designs.

Dims: R runs, A designs, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Fit:
    """What `nas.search.seeds` works out by trial and by seed, as arrays."""

    def __init__(
        self,
        values: Mapping[int, Mapping[int, float]],
        prior_deviation: float,
        prior_freedom: float,
        shared: float,
    ) -> None:
        """values: trial -> seed -> bits per byte; two seeds a trial at least.

        The others are the constants of `nas.search.seeds`.
        """
        self.trials = list(values)
        flat = [
            (at, seed, value)
            for at, own in enumerate(values.values())
            for seed, value in own.items()
        ]
        self._trial_R = np.array([each[0] for each in flat])
        seeds, self._seed_R = np.unique([each[1] for each in flat], return_inverse=True)
        self._value_R = np.array([each[2] for each in flat])
        self._count_A: Floats = self._by_trial(np.ones(len(flat)))
        self._seeds = len(seeds)
        self._prior = prior_deviation, prior_freedom, shared
        self.common_S: Floats = np.zeros(self._seeds)
        self.behind_S: Floats = np.zeros(self._seeds)
        self._settle(self._count_A - 1)

    def round(self) -> None:
        """One round of the fit with a part that is common to a seed's runs."""
        weight_R = (1 / self._variance_A)[self._trial_R]
        behind_S = np.bincount(self._seed_R, weights=weight_R, minlength=self._seeds)
        self.behind_S = np.asarray(behind_S, dtype=float)
        middle_A = self._mean(self._value_R - self.common_S[self._seed_R])
        gap_R = weight_R * (self._value_R - middle_A[self._trial_R]) / self.behind_S[self._seed_R]
        parts_S = np.bincount(self._seed_R, weights=gap_R, minlength=self._seeds)
        self.common_S = parts_S - parts_S.mean()
        used_A = self._mean(weight_R / self.behind_S[self._seed_R])
        self._settle((self._count_A - 1) * (1 - used_A))

    def _settle(self, freedom_A: Floats) -> None:
        """The deviation of all, and each design's variance and degrees of freedom."""
        left_R = self._value_R - self.common_S[self._seed_R]
        squares_A = self._by_trial((left_R - self._mean(left_R)[self._trial_R]) ** 2)
        deviation, freedom, shared = self._prior
        whole = freedom * deviation**2 + squares_A.sum()
        variance = whole / (freedom + freedom_A.sum())
        self._variance_A = (shared * variance + squares_A) / (shared + freedom_A)
        self._freedom_A = shared + freedom_A
        self.deviation = float(np.sqrt(variance))

    @property
    def own(self) -> dict[int, tuple[float, float]]:
        """By trial, its variance and degrees of freedom."""
        both = zip(self._variance_A.tolist(), self._freedom_A.tolist(), strict=True)
        return dict(zip(self.trials, both, strict=True))

    def _by_trial(self, values_R: Floats) -> Floats:
        found = np.bincount(self._trial_R, weights=values_R, minlength=len(self.trials))
        return np.asarray(found, dtype=float)

    def _mean(self, values_R: Floats) -> Floats:
        return self._by_trial(values_R) / self._count_A
