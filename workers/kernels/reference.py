"""Slow and obvious forms of every operation, in float64: what the others are held against.

Names and shapes are those of workers.kernels.grouped, .rows and .triton. Gradients come from
autograd.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def grouped_product(
    x_RI: Tensor,
    w_BIO: Tensor,
    counts: list[int],
    token_P: Tensor | None = None,
    place_P: Tensor | None = None,
    gate_P: Tensor | None = None,
) -> Tensor:
    """y[place p] = gate[p] * x[token p] @ w[expert of p]; rows of one expert lie together."""
    expert_P = [expert for expert, count in enumerate(counts) for _ in range(count)]
    rows: list[Tensor] = [x_RI.new_zeros(0)] * len(expert_P)
    for p, expert in enumerate(expert_P):
        x_I = x_RI[p if token_P is None else int(token_P[p])].double()
        y_O = x_I @ w_BIO[expert].double()
        y_O = y_O if gate_P is None else y_O * gate_P[p].double()
        rows[p if place_P is None else int(place_P[p])] = y_O
    return torch.stack(rows) if rows else x_RI.new_zeros(0, w_BIO.shape[2]).double()


def row_sum(weight_P: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor, n: int) -> Tensor:
    """y[t] = sum over the pairs p of t of weight[p] * table[row[p]], (n, D)."""
    terms_PD = weight_P.double()[:, None] * table_ND.double()[row_P]
    return terms_PD.new_zeros(n, table_ND.shape[1]).index_add(0, token_P, terms_PD)


def row_dot(x_TD: Tensor, table_ND: Tensor, row_P: Tensor, token_P: Tensor) -> Tensor:
    """y[p] = x[token p] . table[row p], (P,)."""
    return (x_TD.double()[token_P] * table_ND.double()[row_P]).sum(1)


def product_key_topk(score_H2TR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of all R * R sums of two halves, and their indices, (H, T, K)."""
    first_HTR, second_HTR = score_H2TR.double().unbind(1)
    sum_HTRR = first_HTR[..., :, None] + second_HTR[..., None, :]
    best_HTK, index_HTK = sum_HTRR.flatten(2).sort(dim=2, descending=True)
    return best_HTK[..., :k], index_HTK[..., :k]


def gated_activation(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """act(gate) * up."""
    g = gate.double()
    act = {
        "relu": lambda: g * (g > 0),
        "silu": lambda: g / (1 + torch.exp(-g)),
        "gelu": lambda: 0.5 * g * (1 + torch.erf(g / math.sqrt(2))),
    }[activation]()
    return act * up.double()


def rms_norm(x_TD: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * w."""
    x = x_TD.double()
    return x / (x.square().mean(1, keepdim=True) + eps).sqrt() * w_D.double()


def linear_cross_entropy(x_TD: Tensor, w_VD: Tensor, target_T: Tensor) -> Tensor:
    """Mean of -log softmax(x w^T)[target]."""
    logp_TV = torch.log_softmax(x_TD.double() @ w_VD.double().t(), dim=1)
    return -logp_TV[torch.arange(len(target_T)), target_T].mean()
