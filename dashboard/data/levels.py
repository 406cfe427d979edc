"""A knob's values as a few levels: what is counted, drawn and compared by them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

FEW = 8  # different numbers up to which each is a level of its own
BINS = 6  # else so many, of equally many designs
MOST = 12  # levels of words; the rarer ones are one
OTHERS = "others"


@dataclass(frozen=True)
class Levels:
    """A knob in levels.

    codes: a level's place a design, -1 where the design has no such knob.
    names: of the levels, in order.
    """

    codes: npt.NDArray[np.int64]
    names: tuple[str, ...]


def levels(values: pd.Series) -> Levels:
    """The values' levels: words as they are, many numbers in bins of equally many designs."""
    present = values.notna().to_numpy()
    codes = np.full(len(values), -1, dtype=np.int64)
    known = values[present]
    if is_number(values) and known.nunique() > FEW:
        numbers = known.to_numpy(dtype=float)
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)))
        codes[present] = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, None)
        codes[present] = np.minimum(codes[present], len(edges) - 2)
        spans = (f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges))
        return Levels(codes, tuple(spans))
    if is_number(values):
        found, codes[present] = np.unique(known.to_numpy(dtype=float), return_inverse=True)
        return Levels(codes, tuple(f"{value:g}" for value in found))
    texts = [_word(value) for value in known]
    places = {word: i for i, word in enumerate(sorted(set(texts)))}
    if len(places) > MOST:
        kept = sorted(pd.Series(texts).value_counts().index[: MOST - 1])
        other = len(kept)
        places = dict.fromkeys(places, other) | {word: i for i, word in enumerate(kept)}
        codes[present] = [places[word] for word in texts]
        return Levels(codes, (*kept, OTHERS))
    codes[present] = [places[word] for word in texts]
    return Levels(codes, tuple(places))


def is_number(values: pd.Series) -> bool:
    """Whether the knob is a number; True and False are words."""
    if values.dtype.kind in "iuf":
        return bool(values.notna().any())
    known = values.dropna()
    return len(known) > 0 and not any(isinstance(each, (bool, np.bool_, str)) for each in known)


def _word(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return str(value)
