"""Paths through a search space's choices: every one in order, and drawn ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any


class OutsideSpace(Exception):
    """A pinned value that the space does not offer."""


class Walk:
    """Answers `suggest` like a trial and visits every path through the choices.

    pinned: parameters that have one answer only. A range that is not pinned answers `low`.
    held: parameters that answer their first choice.
    multiplicity: paths that this one stands for, one for each combination of the choices held.
    ended: whether all were visited.
    """

    def __init__(self, pinned: Mapping[str, Any], held: Collection[str] = ()) -> None:
        self.params: dict[str, Any] = {}
        self.multiplicity = 1
        self._pinned = pinned
        self._held = held
        self.ended = False
        self._path: list[tuple[int, int]] | None = None
        self._at = 0

    def next_path(self) -> bool:
        """Turn to the next path; False when all were visited."""
        self.params, self.multiplicity, self._at = {}, 1, 0
        if self._path is None:
            self._path = []
            return True
        while self._path:
            index, size = self._path.pop()
            if index + 1 < size:
                self._path.append((index + 1, size))
                return True
        self.ended = True
        return False

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The pinned value, or this path's choice."""
        if name in self._held:
            self.multiplicity *= len(choices)
            choices = choices[:1]
        if name in self._pinned:
            if self._pinned[name] not in choices:
                raise OutsideSpace(f"{name} is {self._pinned[name]!r}, its choices are {choices}")
            choices = [c for c in choices if c == self._pinned[name]]
        assert self._path is not None, "next_path comes first"
        if self._at == len(self._path):
            self._path.append((0, len(choices)))
        value = choices[self._path[self._at][0]]
        self._at += 1
        self.params[name] = value
        return value

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The pinned value, or `low`."""
        value = float(self._pinned.get(name, low))
        if not low <= value <= high:
            raise OutsideSpace(f"{name} is {value:g}, its range is [{low:g}, {high:g}]")
        self.params[name] = value
        return value


class Draw:
    """Answers `suggest` like a trial, by chance alone; equal seeds give equal answers."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Any of the choices."""
        return self._random.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """`low`, as in a walk: a range changes no width and no cost."""
        return low
