"""How much of an objective each knob explains, and how sure that is.

The objective counts by its rank among the designs, so that neither a few bad designs nor the unit
decide. A knob is a handful of levels (`dashboard.data.levels`). Two shares of the ranks' variance:

- alone: how much the means of the knob's levels explain, eta squared. What goes along with the
  knob counts with it: a search that tries wide experts only with one method cannot part the two.
- beside the others: how much less an additive model of all knobs explains without it.

Both are adjusted for the number of levels, 1 - (1 - R2) (n - 1) / (n - p), so that a knob without
any effect has 0 in the mean. What shows only in some pair of levels (an interaction) is in neither.
A knob that some designs do not have is judged among those that have it.

Intervals are the jackknife's: without each of the designs in turn.

Dims: N designs, P columns of the model, K objectives, L levels of all knobs, S shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard.data.levels import levels

LEAST = 20  # designs with a knob below which nothing is said of it
MOST_DESIGNS = 1000  # that are looked at; of more, so many are drawn at random
SHUFFLES = 999  # so that among 50 knobs one can still be told from chance
LEVEL = 0.05  # at which a knob is told from chance, over all knobs of an objective
_Z = 1.96
_RIDGE = 1e-8  # where columns depend on each other, the smallest of the solutions

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
COLUMNS = (
    *("objective", "knob", "designs", "alone", "alone_low", "alone_high"),
    *("beside", "beside_low", "beside_high", "chance", "told"),
)


def importance(knobs: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """A row an objective and knob. Columns: objective, knob, designs (that have the knob), alone,
    beside (shares, from 0 to 1, with the ends of their 95% intervals: alone_low, ...), chance (the
    probability of as large a share alone without any effect, corrected for the number of knobs),
    told (whether that is at most `LEVEL`). Shares are missing where too few designs tell; `beside`
    also where the model would have too many columns.

    knobs: as `AtRung` has them.
    values: one column an objective, the same rows.
    """
    rows = []
    present = knobs.notna()
    patterns: dict[bytes, list[str]] = {}
    for name in knobs.columns:  # knobs that the same designs have are judged together
        patterns.setdefault(present[name].to_numpy().tobytes(), []).append(name)
    shuffles = _Shuffles()
    for names in patterns.values():
        have = present[names[0]].to_numpy()
        rows += _together(names, knobs[have], values[have], shuffles)
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in values.columns:
        mine = found["objective"] == name
        found.loc[mine, "chance"] = holm(found.loc[mine, "chance"].to_numpy(dtype=float))
    found["told"] = found["chance"] <= LEVEL
    order = {name: i for i, name in enumerate(values.columns)}
    found["_place"] = found["objective"].map(order)
    found = found.sort_values(["_place", "alone"], ascending=[True, False], kind="stable")
    return found.drop(columns="_place").reset_index(drop=True)


def holm(chances: Floats) -> Floats:
    """Corrected for their number (Holm 1979): the probability of one such among all by chance."""
    found = np.full(len(chances), np.nan)
    known = np.flatnonzero(~np.isnan(chances))
    order = known[np.argsort(chances[known])]
    factors = len(order) - np.arange(len(order))
    found[order] = np.minimum(np.maximum.accumulate(chances[order] * factors), 1.0)
    return found


@dataclass(frozen=True)
class _Model:
    """The additive model of some designs: their knobs' levels as columns.

    x_NP: the constant, and a column for each level but the first of each knob, less its mean over
        the designs that have the knob; 0 for the others. So a knob's columns say nothing of who has
        it: that is its method's.
    columns: of each knob.
    """

    x_NP: Floats
    columns: dict[str, slice]


def _together(
    names: Sequence[str], knobs: pd.DataFrame, values: pd.DataFrame, shuffles: _Shuffles
) -> list[dict[str, object]]:
    """The rows of knobs that all of these designs have."""
    if len(knobs) > MOST_DESIGNS:
        drawn = np.random.default_rng(0).choice(len(knobs), MOST_DESIGNS, replace=False)
        count, knobs, values = len(knobs), knobs.iloc[np.sort(drawn)], values.iloc[np.sort(drawn)]
    else:
        count = len(knobs)
    rows = [
        {"objective": objective, "knob": name, "designs": count}
        for objective in values.columns
        for name in names
    ]
    known = np.isfinite(values.to_numpy(dtype=float)).all(axis=1)
    knobs, values = knobs[known], values[known]
    if len(knobs) < LEAST:
        return rows
    y_NK = values.rank().to_numpy()
    y_NK = y_NK - y_NK.mean(axis=0)
    marks = {name: _indicators(knobs[name]) for name in knobs.columns}
    model = _model(marks, len(knobs))
    told_of = [name for name in names if name in model.columns]  # the others have one value here
    fits, chances = _Fits(model, y_NK), _chances({n: marks[n][0] for n in told_of}, y_NK, shuffles)
    told: dict[tuple[object, object], dict[str, float]] = {}
    for name in told_of:
        alone, beside = fits.alone(name), fits.beside(name)
        for k, objective in enumerate(values.columns):
            found = _interval("alone", float(alone[0][k]), float(alone[1][k]))
            if beside is not None:
                found |= _interval("beside", float(beside[0][k]), float(beside[1][k]))
            told[objective, name] = found | {"chance": float(chances[name][k])}
    return [row | told.get((row["objective"], row["knob"]), {}) for row in rows]


def _model(knobs: Mapping[str, tuple[Floats, Bools]], designs: int) -> _Model:
    """knobs: `_indicators` of each."""
    blocks, columns, at = [np.ones((designs, 1))], {}, 1
    for name, (level_NL, have_N) in knobs.items():
        if level_NL.shape[1] < 2:
            continue
        own = level_NL[:, 1:]
        blocks.append(np.where(have_N[:, None], own - own[have_N].mean(axis=0), 0.0))
        columns[name] = slice(at, at + own.shape[1])
        at += own.shape[1]
    return _Model(np.concatenate(blocks, axis=1), columns)


def _indicators(knob: pd.Series) -> tuple[Floats, Bools]:
    """1 at each design's level, of those that occur; and which designs have the knob."""
    codes = levels(knob).codes
    found = np.unique(codes[codes >= 0])
    return (codes[:, None] == found).astype(float), codes >= 0


class _Fits:
    """Least squares of the ranks, and the same without each of the designs in turn."""

    def __init__(self, model: _Model, y_NK: Floats) -> None:
        self._model, self._y_NK = model, y_NK
        self._gram_PP = model.x_NP.T @ model.x_NP
        self._with_PK = model.x_NP.T @ y_NK
        # With fewer designs than twice the columns, what one knob adds is mostly luck.
        self._enough = len(y_NK) >= 2 * model.x_NP.shape[1]
        self._all = self._shares(np.arange(model.x_NP.shape[1])) if self._enough else None

    def alone(self, name: str) -> tuple[Floats, Floats]:
        """(K,) adjusted shares of the knob's levels alone, and their standard errors."""
        place = self._model.columns[name]
        return _jackknife(*self._shares(np.r_[0, place.start : place.stop]))

    def beside(self, name: str) -> tuple[Floats, Floats] | None:
        """(K,) adjusted shares that the model loses without the knob, and their errors."""
        if self._all is None:
            return None
        rest = np.delete(np.arange(self._model.x_NP.shape[1]), self._model.columns[name])
        found, found_NK = self._shares(rest)
        return _jackknife(self._all[0] - found, self._all[1] - found_NK)

    def _shares(self, columns: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Adjusted shares (K,) that these columns explain; (N, K) without each design.

        Without design i the residual squares are e_i^2 / (1 - h_i) fewer, with its leverage h_i:
        nothing is fitted again.
        """
        x, y, n = self._model.x_NP[:, columns], self._y_NK, len(self._y_NK)
        gram_PP = self._gram_PP[np.ix_(columns, columns)]
        inverse_PP = np.linalg.inv(gram_PP + _RIDGE * n * np.eye(len(columns)))
        inside_NP = x @ inverse_PP
        rest_NK = y - inside_NP @ self._with_PK[columns]
        leverage_N = np.sum(inside_NP * x, axis=1)
        p = round(float(leverage_N.sum()))  # the columns' rank
        # A design that is alone in its level takes the level along.
        lone = leverage_N > 1 - 1e-9
        less_NK = np.where(
            lone[:, None], 0.0, rest_NK**2 / np.where(lone, 1, 1 - leverage_N)[:, None]
        )
        residual_K, total_K = np.sum(rest_NK**2, axis=0), np.sum(y**2, axis=0)
        whole = _adjusted(residual_K, total_K, n, p)
        return whole, _adjusted(residual_K - less_NK, total_K - y**2 * n / (n - 1), n - 1, p)


def _adjusted(residual: Floats, total: Floats, n: int, p: int) -> Floats:
    return np.asarray(1 - residual / np.maximum(total, 1e-12) * (n - 1) / max(n - p, 1))


def _jackknife(whole_K: Floats, without_NK: Floats) -> tuple[Floats, Floats]:
    """The figures with their standard errors, of those without each design (Tukey 1958)."""
    n = len(without_NK)
    squares_K = np.sum((without_NK - without_NK.mean(axis=0)) ** 2, axis=0)
    return whole_K, np.sqrt((n - 1) / n * squares_K)


class _Shuffles:
    """Orders at random, the same for all knobs of as many designs: they take a while to draw."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], list[npt.NDArray[np.int32]]] = {}

    def of(self, designs: int, objectives: int) -> list[npt.NDArray[np.int32]]:
        """For each objective, orders of the designs (S, N)."""
        key = designs, objectives
        if key not in self._known:
            source, plain_SN = np.random.default_rng(0), np.tile(np.arange(designs), (SHUFFLES, 1))
            drawn = [source.permuted(plain_SN, axis=1) for _ in range(objectives)]
            self._known[key] = [order_SN.astype(np.int32) for order_SN in drawn]
        return self._known[key]


def _chances(blocks: Mapping[str, Floats], y_NK: Floats, shuffles: _Shuffles) -> dict[str, Floats]:
    """By knob, how often shuffled ranks have as large a share alone: (K,).

    blocks: each design's level of the knob, as `_indicators` has it.
    """
    if not blocks:
        return {}
    ends = np.cumsum([block.shape[1] for block in blocks.values()])
    places = {
        name: slice(end - block.shape[1], end)
        for (name, block), end in zip(blocks.items(), ends.tolist(), strict=True)
    }
    level_LN = np.concatenate(list(blocks.values()), axis=1, dtype=np.float32).T
    counts_L = level_LN.sum(axis=1)
    found = {name: np.zeros(y_NK.shape[1]) for name in places}
    for k, order_SN in enumerate(shuffles.of(*y_NK.shape)):
        own_N = y_NK[:, k].astype(np.float32)
        real_L = (level_LN @ own_N) ** 2 / counts_L
        drawn_LS = (level_LN @ own_N[order_SN].T) ** 2 / counts_L[:, None]
        for name, place in places.items():
            real, drawn_S = real_L[place].sum(), drawn_LS[place].sum(axis=0)
            more = int(np.sum(drawn_S >= real * (1 - 1e-6)))
            found[name][k] = (1 + more) / (1 + SHUFFLES)
    return found


def _interval(name: str, share: float, error: float) -> dict[str, float]:
    """The share and 1.96 standard errors to both sides, within 0 and 1."""
    values = (share, share - _Z * error, share + _Z * error)
    keys = (name, f"{name}_low", f"{name}_high")
    return {key: min(max(value, 0.0), 1.0) for key, value in zip(keys, values, strict=True)}
