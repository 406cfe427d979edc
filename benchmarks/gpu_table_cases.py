"""Reads of tables, and product keys, as every form that computes them.

T tokens, P (token, row) pairs, N table rows, K choices of a token.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.gpu_case import Case, Maker, Sizes, both
from workers.kernels.api.rows import row_dot, row_sum
from workers.kernels.row_order import RowOrder
from workers.kernels.triton import product_key, rows, spread
from workers.layers.experts import SPREAD


def table_reads(make: Maker, n: Sizes) -> Iterator[Case]:
    n_pairs = n.tokens * n.reads
    table_ND, x_TD = make.normal(n.rows, n.width), make.normal(n.tokens, n.width)
    weight_P, row_P = make.normal(n_pairs), make.below(n.rows, n_pairs)
    start_T = torch.arange(0, n_pairs, n.reads, device=make.device)
    token_P = torch.arange(n.tokens, device=make.device).repeat_interleave(n.reads)
    order = RowOrder(row_P, token_P, start_T)
    read = n_pairs * n.width * table_ND.element_size()
    moved, flops = read + x_TD.numel() * x_TD.element_size(), 2.0 * n_pairs * n.width
    yield Case(
        "row sum",
        both(lambda: row_sum(weight_P, table_ND, order)),
        lambda: row_sum(weight_P.double(), table_ND.double(), order),
        moved,
        flops,
    )
    yield Case(
        "row dot",
        both(lambda: row_dot(x_TD, table_ND, order)),
        lambda: row_dot(x_TD.double(), table_ND.double(), order),
        moved,
        flops,
    )

    def scatter(x: Tensor, weight: Tensor) -> Tensor:
        return torch.zeros(n.rows, n.width, dtype=x.dtype, device=x.device).index_add_(
            0, row_P, x[token_P] * weight[:, None]
        )

    yield Case(
        "row gradient",
        {
            "triton": lambda: rows.row_gradient(weight_P, x_TD, row_P, token_P, n.rows),
            "torch": lambda: scatter(x_TD, weight_P),
        },
        lambda: scatter(x_TD.double(), weight_P.double()),
        2 * read,
        flops,
    )


def much_of_a_table(make: Maker, n: Sizes) -> Iterator[Case]:
    """A sum of one row in SPREAD of a table, by a product with all of it and by reads."""
    n_tokens, n_rows, width = n.tokens // 4, n.tokens // 4, max(8, n.width // 8)
    k = max(1, n_rows // SPREAD)
    table_ND, weight_TK = make.normal(n_rows, width), make.normal(n_tokens, k).float()
    index_TK = make.normal(n_tokens, n_rows).float().topk(k).indices
    row_P, start_T = index_TK.flatten(), torch.arange(n_tokens, device=make.device) * k

    def product(weight: Tensor) -> Tensor:
        return spread.spread(weight, index_TK, n_rows, k, table_ND.dtype) @ table_ND

    def exact() -> Tensor:
        read_TKD = table_ND.double()[index_TK]
        return (weight_TK.double()[..., None] * read_TKD).sum(1)

    forms = {
        "triton": lambda: product(weight_TK),
        "triton, by reads": lambda: rows.weighted_row_sum(
            weight_TK.flatten(), table_ND, row_P, start_T
        ),
    }
    moved = 2.0 * n_tokens * n_rows * table_ND.element_size()
    yield Case("much of a table", forms, exact, moved, 2.0 * n_tokens * n_rows * width)


def product_keys(make: Maker, n: Sizes) -> Iterator[Case]:
    k = min(16, n.root)
    score_H2TR = make.normal(n.heads, 2, n.tokens, n.root).float()

    def two_step(score: Tensor) -> Tensor:
        half = score.topk(k, dim=3).values
        return (half[:, 0, ..., :, None] + half[:, 1, ..., None, :]).flatten(2).topk(k).values

    forms = {
        "triton": lambda: product_key.best_keys(score_H2TR, k)[0],
        "torch": lambda: two_step(score_H2TR),
    }
    moved = score_H2TR.numel() * score_H2TR.element_size()
    yield Case("product key", forms, lambda: two_step(score_H2TR.double()), moved)
