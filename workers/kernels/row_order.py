"""The pairs of a token and a row of a table, sorted by row, and when and how a gradient is sparse.

N rows of the table, D their width, T tokens, P (token, row) pairs sorted by token, U rows that a
pair reads.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from workers.kernels.place import kind

# A touched row costs a sparse step (its gradient, sorted, and the row-wise optimizer) about four
# times what any row costs a dense one. Small tables do not repay the handling.
SPARSE_ROWS_A_PAIR = 4
SPARSE_ELEMENTS = 1 << 20


class RowOrder:
    """The pairs, and the same sorted by row, found when first asked for. One serves all tables of a
    layer that are read by the same pairs.

    row_P: the row of each pair, (P,).
    token_P: its token, (P,), ascending.
    start_T: where each token's pairs begin, (T,); a token may have none.
    n_rows: of the table, where that is known.
    """

    def __init__(
        self, row_P: Tensor, token_P: Tensor, start_T: Tensor, n_rows: int | None = None
    ) -> None:
        self.given = row_P, token_P, start_T  # by token
        self.n_rows = n_rows

    @cached_property
    def sorted_narrow(self) -> tuple[Tensor, Tensor]:
        """`row_P` in 32 bits or less, and `place_P`. A GPU sorts a byte at a time."""
        row_P = self.given[0]
        few = self.n_rows is not None and self.n_rows <= 1 << 15 and kind(row_P) != "cpu"
        return torch.sort(row_P.short() if few else row_P.int(), stable=True)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        narrow_P, place_P = self.sorted_narrow
        return narrow_P.to(self.given[0].dtype), place_P

    @property
    def row_P(self) -> Tensor:
        """Ascending rows."""
        return self._sorted[0]

    @property
    def place_P(self) -> Tensor:
        """Where each pair lies in the order by token."""
        return self._sorted[1]

    @cached_property
    def token_P(self) -> Tensor:
        """The token of each pair."""
        return self.given[1].index_select(0, self.place_P)

    @cached_property
    def touched(self) -> tuple[Tensor, Tensor]:
        """The rows that have pairs, ascending, and where each one's begin, both (U,)."""
        row_U, size_U = torch.unique_consecutive(self.row_P, return_counts=True)
        return row_U, size_U.cumsum(0) - size_U

    @cached_property
    def narrow(self) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs' rows, tokens and places in 32 bits: half of what is kept for backward."""
        return self.row_P.int(), self.token_P.int(), self.place_P.int()

    @cached_property
    def by_token(self) -> tuple[Tensor, Tensor]:
        """The pairs' rows as they came, in 32 bits, and where each token's begin."""
        return self.given[0].int(), self.given[2]

    def starts(self, n_rows: int) -> Tensor:
        """Where each row's pairs begin, (N,)."""
        if kind(self.given[0]) != "cpu":  # a GPU would be asked how many rows there are
            row_N = torch.arange(n_rows, device=self.given[0].device)
            return torch.searchsorted(self.row_P, row_N)
        size_N = torch.bincount(self.given[0], minlength=n_rows)
        return size_N.cumsum(0) - size_N


def wants_sparse(table: Tensor, n_pairs: int) -> bool:
    """Whether a table (..., D) that n_pairs pairs read gets a sparse gradient."""
    large = table.numel() >= SPARSE_ELEMENTS
    return large and table.shape[:-1].numel() >= SPARSE_ROWS_A_PAIR * n_pairs


def sparse_gradient(row_U: Tensor, values_UD: Tensor, shape: torch.Size) -> Tensor:
    """A table's gradient that holds some rows alone.

    row_U: each once, ascending.
    shape: the table's, (..., D).
    """
    index = torch.stack(torch.unravel_index(row_U, shape[:-1]))
    return torch.sparse_coo_tensor(
        index, values_UD, shape, is_coalesced=True, check_invariants=False
    )
