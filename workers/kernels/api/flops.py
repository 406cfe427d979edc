"""How torch's FLOP counter counts what it does not know: a multiply-add is 2 FLOPs, a row that is
read 2 an element.

`FlopCounterMode(custom_mapping=custom_flops())` counts a layer as `search_space.cost` does,
whatever backend runs. Rules are functions of the arguments' shapes (None for an argument that is
left out) that return FLOPs.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from workers.kernels.api.orthogonalize import orthogonalize_flops
from workers.kernels.api.torch_flops import Rule, Shape, dots, torch_flops
from workers.kernels.dispatch import numba_fault


def custom_flops() -> dict[Any, Rule]:
    """The rules of torch's own operations that workers.kernels uses, and of numba's operators."""
    rules = torch_flops()
    if not numba_fault():  # asked, so that the operators are there before they first run
        library = torch.ops.ffn_nas_cpu
        rules |= {getattr(library, name): RULES[name] for name in RULES if hasattr(library, name)}
    return rules


def count(operator: Any) -> None:
    """Teach torch's counter an operator for good, by the rule of its name: Triton's are.

    operator: of torch.ops, without an overload.
    """
    # Imports triton where it is installed, which a CPU's process does not.
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(operator)(RULES[operator.__name__])


def _expert_ffn(
    x: Shape,
    keys: Shape,
    gates: Shape | None,
    values: Shape,
    weight: Shape | None,
    token: Shape,
    *_: Any,
    **__: Any,
) -> int:
    n_matrices = 2 if gates is None else 3
    return 2 * n_matrices * token[0] * keys[1] * keys[2]


def _output_gated(
    x: Shape, keys: Shape, gates: Shape | None, *rest: Shape | None, n_pairs: int = 0, **_: Any
) -> int:
    """Every matrix's products, and each pair's own gate, as closed forms count it."""
    n_experts, width, inner = keys
    n_pairs = n_pairs or x[0] * n_experts
    return 2 * n_pairs * inner * ((2 if gates is None else 3) * width + 1)


def _output_gated_backward(dy: Shape, pre: Shape, both: Shape, u: Shape, *_: Any, **__: Any) -> int:
    n_experts, width = u
    return 4 * prod(dy) * (pre[1] + n_experts * (width + 1))


def _weighted_rows(weight: Shape, table: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(weight) * table[-1]


def _two_dots(first: Shape, wide: Shape, table: Shape, row: Shape, *_: Any, **__: Any) -> int:
    return 4 * prod(row) * table[-1]


def _search_backward(d: Shape, index: Shape, query: Shape, *_: Any, **__: Any) -> int:
    return 8 * prod(d) * query[-1]


def _grouped_product(
    x: Shape,
    x_row: Shape,
    w: Shape,
    transposed: bool,
    expert: Shape,
    start: Shape,
    y: Shape,
    y_row: Shape,
    add: bool,
    n_terms: int,
    **_: Any,
) -> int:
    """By what is written: factors in pairs are half as wide as they count."""
    return 2 * x_row[0] * n_terms * y[1]


def _product(x: Shape, w: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(x) * w[-1]


# numba's operators, then Triton's; a name that both have counts the same.
RULES: dict[str, Rule] = {
    # The causal half, which is what the compiled forms do.
    "attention": lambda q, *_, **__: 2 * prod(q) * q[1],
    "attention_backward": lambda dy, *_, **__: 4 * prod(dy) * dy[1],
    "grouped_product": _grouped_product,
    "grouped_weight_gradient": lambda d, x, x_row, expert, start, new, grad, **_: (
        2 * prod(x_row) * grad[1] * grad[2]
    ),
    "row_dots": dots,
    "add_rows": dots,
    "whole_sums": _weighted_rows,
    "whole_dots": dots,
    "whole_gradient": _weighted_rows,
    "row_gradient": _weighted_rows,
    "row_sum_backward": _two_dots,
    "row_dot_backward": _two_dots,
    "search_backward": _search_backward,
    "search_products": _search_backward,
    "newton_schulz": lambda g, a, b, c, steps, *_, **__: orthogonalize_flops(g, steps),
    "grouped_mm": _product,
    "grouped_mm_weight_gradient": _product,
    "row_sum": _weighted_rows,
    "row_dot": lambda x, table, row, token, start, by=None, order=None, known=None, **_: (
        0 if known is not None else dots(x, table, row)
    ),
    "expert_ffn": _expert_ffn,
    "expert_ffn_backward": lambda dy, key, gate, *forward, **_: 2 * _expert_ffn(*forward),
    "output_gated_ffn": _output_gated,
    "output_gated_ffn_backward": _output_gated_backward,
    "output_gated_pairs": lambda x, keys, gates, values, gate, weight, token, *_, **__: (
        _output_gated(x, keys, gates, n_pairs=token[0])
    ),
    "output_gated_pairs_backward": lambda dy, key, gate, u, token, *rest, **_: (
        2 * _output_gated(*rest[3:6], n_pairs=token[0])
    ),
    "linear_cross_entropy": lambda x, w, target, chunk, keep, **_: (
        2 * (3 if keep else 1) * prod(x) * w[0]
    ),
}
