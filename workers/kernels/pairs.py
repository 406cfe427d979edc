"""The tensors of experts, and which token reads which expert.

D model width, T tokens, R rows of a tile, P (token, expert) pairs sorted by expert, B experts, G
units of an expert, C weights of a pair, each for G / C units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Watch = Callable[[Tensor], None]


class Operands(NamedTuple):
    """The tensors of an expert FFN.

    x_TD: (T, D).
    keys_BGD, gates_BGD, values_BGD: the experts' matrices, (B, G, D); gates may be None.
    weight_PC: of the pairs, (P, C); None for ones.
    """

    x_TD: Tensor
    keys_BGD: Tensor
    gates_BGD: Tensor | None
    values_BGD: Tensor
    weight_PC: Tensor | None


@dataclass(frozen=True)
class Tile:
    """Consecutive pairs: `sizes[i]` of expert `experts[i]`, `first[i]` where they are its first."""

    rows: slice
    experts: list[int]
    sizes: list[int]
    first: list[bool]


@dataclass(frozen=True)
class Pairs:
    """Which token reads which expert.

    token_P: the token of each pair, None where one expert reads all tokens in order.
    counts: pairs of each expert, B of them.
    """

    token_P: Tensor | None
    counts: list[int]

    def tiles(self, n_rows: int) -> Iterator[Tile]:
        """All pairs in order, n_rows a tile; an expert's pairs may lie in several."""
        rows = slice(0, 0)
        parts: list[tuple[int, int, bool]] = []
        for expert, count in enumerate(self.counts):
            done = 0
            while done < count:
                size = min(count - done, n_rows - (rows.stop - rows.start))
                parts.append((expert, size, done == 0))
                rows = slice(rows.start, rows.stop + size)
                done += size
                if rows.stop - rows.start == n_rows:
                    yield Tile(rows, *map(list, zip(*parts, strict=True)))
                    rows, parts = slice(rows.stop, rows.stop), []
        if parts:
            yield Tile(rows, *map(list, zip(*parts, strict=True)))

    def read(self, x_TD: Tensor, rows: slice) -> Tensor:
        """The tokens of a tile, (R, D)."""
        return x_TD[rows] if self.token_P is None else x_TD.index_select(0, self.token_P[rows])

    def add(self, y_TD: Tensor, rows: slice, part_RD: Tensor) -> None:
        """Add a tile's rows to their tokens."""
        if self.token_P is None:
            y_TD[rows] = part_RD
        else:
            y_TD.index_add_(0, self.token_P[rows], part_RD)
