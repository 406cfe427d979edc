"""The tensors of experts, and which token reads which expert.

D model width, T tokens, R rows of a tile, P (token, expert) pairs sorted by expert, B experts, A
experts that all tokens read, G units of an expert, C weights of a pair, each for G / C units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

Watch = Callable[[Tensor], None]


# Keys, gates and values, (A, G, D) each, gates or all three None.
SharedMatrices = tuple[Tensor | None, Tensor | None, Tensor | None]


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


class Loads:
    """How many pairs each of B experts has: a tensor where the pairs lie, and a list for the host.

    One is given, and the other made when it is first asked for. Whoever asks for the list of pairs
    that lie on a GPU waits for the GPU, so its forms ask for the tensor alone.
    """

    def __init__(self, known: list[int] | Tensor) -> None:
        """known: the counts, B of them; or `end_B` (B,), int64: where each expert's pairs end."""
        self.known = known

    @staticmethod
    def of_sorted(expert_P: Tensor, n_experts: int) -> Loads:
        """expert_P: ascending, (P,); what is n_experts or more counts for none."""
        expert_B = torch.arange(n_experts, device=expert_P.device, dtype=expert_P.dtype)
        return Loads(torch.searchsorted(expert_P, expert_B, right=True))

    def __len__(self) -> int:
        return len(self.known)

    @cached_property
    def listed(self) -> list[int]:
        """The counts, for the host."""
        if isinstance(self.known, list):
            return self.known
        ends = self.known.tolist()
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def end_B(self, device: torch.device) -> Tensor:
        """(B,) int64: where each expert's pairs end, without asking the device."""
        if isinstance(self.known, Tensor):
            return self.known
        return torch.tensor(self.known, device=device).cumsum(0)

    def count_B(self, device: torch.device) -> Tensor:
        """(B,) int64: the counts, without asking the device."""
        end_B = self.end_B(device)
        return torch.diff(end_B, prepend=end_B.new_zeros(1))


class Pairs:
    """Which token reads which expert.

    token_P: the token of each pair, None where one expert reads all tokens in order. Pairs beyond
        the last expert's are no pairs: their token is T, and nothing reads or writes their rows.
    loads: how many each expert has.
    choice_P: where all tokens have k pairs, the place of each among the T * k by token.
    placed: what `by_token` says, where it is known.
    """

    def __init__(
        self,
        token_P: Tensor | None,
        loads: Loads | list[int],
        choice_P: Tensor | None = None,
        placed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.token_P, self.choice_P, self.placed = token_P, choice_P, placed
        self.loads = Loads(loads) if isinstance(loads, list) else loads

    @property
    def counts(self) -> list[int]:
        """Pairs of each expert, for the host."""
        return self.loads.listed

    def by_token(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        """The pairs in the tokens' order, (P,), and where each token's begin and the last one's
        end, (T + 1,). Asks the device nothing."""
        if self.placed is not None:
            return self.placed
        assert self.token_P is not None
        device, n_pairs = self.token_P.device, self.token_P.numel()
        if self.choice_P is not None and n_tokens:
            place_P = torch.arange(n_pairs, device=device)
            order_P = torch.empty_like(place_P).scatter_(0, self.choice_P, place_P)
            return order_P, torch.arange(0, n_pairs + 1, n_pairs // n_tokens, device=device)
        sorted_P, order_P = torch.sort(self.token_P, stable=True)
        token_T1 = torch.arange(n_tokens + 1, device=device)
        return order_P, torch.searchsorted(sorted_P, token_T1)

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
