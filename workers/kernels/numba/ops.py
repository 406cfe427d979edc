"""The compiled operations as operators that torch knows: profiles, fake tensors, FLOP counts
(workers.kernels.api.flops). They write where they are told, and have no gradients of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.numba import activations, grouped, norms, rows, topk

LIBRARY = torch.library.Library("ffn_nas_cpu", "DEF")
OPS = torch.ops.ffn_nas_cpu
NAMES: list[str] = []


def _operator(schema: str) -> Any:
    """Registers a function as that operator, which returns nothing and makes no gradient."""

    def register(function: Any) -> Any:
        name = LIBRARY.define(schema)
        NAMES.append(name)
        LIBRARY.impl(name, function, "CPU")
        torch.library.register_fake(f"ffn_nas_cpu::{name}", _writes_only, lib=LIBRARY)
        return getattr(OPS, name).default

    return register


def _writes_only(*args: Any) -> None:
    return None


def _arrays(*tensors: Tensor) -> list[Any]:
    return [x.detach().numpy() for x in tensors]


@_operator(
    "grouped_product(Tensor x, Tensor x_row, Tensor w, bool transposed, Tensor expert, "
    "Tensor start, Tensor(a!) y, Tensor y_row, bool add) -> ()"
)
def grouped_product(
    x_XI: Tensor,
    x_row_P: Tensor,
    w_BIO: Tensor,
    transposed: bool,
    expert_N: Tensor,
    start_N: Tensor,
    y_YO: Tensor,
    y_row_P: Tensor,
    add: bool,
) -> None:
    """y[y_row p] (+)= x[x_row p] @ w[expert of p] or its transpose; start_N has N + 1 entries."""
    x, x_row, w, expert, start, y, y_row = _arrays(
        x_XI, x_row_P, w_BIO, expert_N, start_N, y_YO, y_row_P
    )
    grouped.product(x, x_row, w, transposed, expert, start, y, y_row, add)


@_operator(
    "grouped_weight_gradient(Tensor d, Tensor x, Tensor x_row, Tensor expert, Tensor start, "
    "Tensor new, Tensor(a!) grad) -> ()"
)
def grouped_weight_gradient(
    d_PG: Tensor,
    x_XD: Tensor,
    x_row_P: Tensor,
    expert_N: Tensor,
    start_N: Tensor,
    new_N: Tensor,
    grad_BGD: Tensor,
) -> None:
    """grad[expert] (+)= d^T x[x_row] over each run's pairs; where `new_N` it is written anew."""
    grouped.weight_gradient(*_arrays(d_PG, x_XD, x_row_P, expert_N, start_N, new_N, grad_BGD))


RUNS = "Tensor row, Tensor token, Tensor place"


@_operator(f"row_dots(Tensor x, Tensor table, {RUNS}, Tensor(a!) y) -> ()")
def row_dots(*tensors: Tensor) -> None:
    """y[place] = x[token] . table[row]."""
    rows.dot(*_arrays(*tensors))


@_operator(f"add_rows(Tensor weight, Tensor table, {RUNS}, Tensor(a!) y) -> ()")
def add_rows(*tensors: Tensor) -> None:
    """y[token] += weight[place] * table[row]."""
    rows.add_rows(*_arrays(*tensors))


@_operator(f"row_gradient(Tensor weight, Tensor x, {RUNS}, bool sparse, Tensor(a!) y) -> ()")
def row_gradient(*arguments: Any) -> None:
    """y[row] = the sum of weight[place] * x[token] over its pairs; sparse: rows with pairs only."""
    *inputs, sparse, y_MD = arguments
    rows.gradient(*_arrays(*inputs), sparse, *_arrays(y_MD))


@_operator(
    f"row_sum_backward(Tensor weight, Tensor dy, Tensor table, {RUNS}, bool sparse, "
    "Tensor(a!) d_weight, Tensor(b!) d_table) -> ()"
)
def row_sum_backward(*arguments: Any) -> None:
    """Both gradients of a row sum: `row_gradient` of weight and dy, `row_dots` of dy and table."""
    *inputs, sparse, d_weight_P, d_table_MD = arguments
    rows.sum_backward(*_arrays(*inputs), sparse, *_arrays(d_weight_P, d_table_MD))


@_operator(
    f"row_dot_backward(Tensor dy, Tensor x, Tensor table, {RUNS}, bool sparse, "
    "Tensor(a!) dx, Tensor(b!) d_table) -> ()"
)
def row_dot_backward(*arguments: Any) -> None:
    """Both gradients of row dots: `row_gradient` of dy and x, `add_rows` of dy and table."""
    *inputs, sparse, dx_TD, d_table_MD = arguments
    rows.dot_backward(*_arrays(*inputs), sparse, *_arrays(dx_TD, d_table_MD))


@_operator("top_rows(Tensor score, Tensor(a!) place, Tensor(b!) best) -> ()")
def top_rows(score_RN: Tensor, place_RK: Tensor, best_RK: Tensor) -> None:
    """The K largest of each row, the largest first, and where they are."""
    topk.top_rows(*_arrays(score_RN, place_RK, best_RK))


@_operator(
    "top_sums(Tensor best, Tensor place, int n_keys, Tensor(a!) score, Tensor(b!) index) -> ()"
)
def top_sums(
    best_STJ: Tensor, place_STJ: Tensor, n_keys: int, score_HTK: Tensor, index_HTK: Tensor
) -> None:
    """The K largest sums of an entry of each half, and their experts."""
    topk.top_sums(*_arrays(best_STJ, place_STJ), n_keys, *_arrays(score_HTK, index_HTK))


@_operator(
    "search_backward(Tensor d_score, Tensor index, Tensor query, Tensor keys, "
    "Tensor(a!) d_query, Tensor(b!) d_keys) -> ()"
)
def search_backward(*tensors: Tensor) -> None:
    """Adds the gradients of the queries and the sub-keys that were chosen."""
    topk.search_backward(*_arrays(*tensors))


@_operator("rms_norm(Tensor x, Tensor w, float eps, Tensor(a!) y, Tensor(b!) scale) -> ()")
def rms_norm(x_TD: Tensor, w_D: Tensor, eps: float, y_TD: Tensor, scale_T: Tensor) -> None:
    """y = x scale w, with scale = 1 / sqrt(mean(x^2) + eps)."""
    norms.norm(*_arrays(x_TD, w_D), eps, *_arrays(y_TD, scale_T))


@_operator(
    "rms_norm_backward(Tensor dy, Tensor x, Tensor w, Tensor scale, Tensor(a!) dx, "
    "Tensor(b!) dw) -> ()"
)
def rms_norm_backward(*tensors: Tensor) -> None:
    """The gradient in x, and that in w added to what is there."""
    norms.norm_backward(*_arrays(*tensors))


@_operator(
    "normed_heads(Tensor qkv, Tensor w, Tensor cos, Tensor sin, float eps, Tensor(a!) out) -> ()"
)
def normed_heads(*arguments: Any) -> None:
    """Queries and keys normed and turned, values copied, out of the rows of their product."""
    *inputs, eps, out_3THC = arguments
    norms.heads(*_arrays(*inputs), eps, *_arrays(out_3THC))


@_operator(
    "normed_heads_backward(Tensor dq, Tensor dk, Tensor dv, Tensor qkv, Tensor w, Tensor cos, "
    "Tensor sin, float eps, Tensor(a!) d_qkv, Tensor(b!) dw) -> ()"
)
def normed_heads_backward(*arguments: Any) -> None:
    """The gradient in qkv, and those in the gains added to what is there."""
    *inputs, eps, d_qkv_T3HC, dw_2C = arguments
    norms.heads_backward(*_arrays(*inputs), eps, *_arrays(d_qkv_T3HC, dw_2C))


@_operator("hidden(int code, Tensor key, Tensor gate, Tensor weight, Tensor(a!) h) -> ()")
def hidden(code: int, *tensors: Tensor) -> None:
    """h = weight act(gate) key, or weight act(key) where there are no gates."""
    activations.hidden(activations.KINDS[code], *_arrays(*tensors))


@_operator(
    "hidden_backward(int code, Tensor key, Tensor gate, Tensor weight, Tensor(a!) dh, "
    "Tensor(b!) h, Tensor(c!) d_gate, Tensor(d!) d_weight) -> ()"
)
def hidden_backward(code: int, *tensors: Tensor) -> None:
    """`hidden` anew, and its gradients: that of the keys' side in dh's place."""
    activations.hidden_backward(activations.KINDS[code], *_arrays(*tensors))
