"""Slow and obvious forms of every operation, in float64: what the others are held against.

Names and shapes are those of workers.kernels.api. Gradients come from autograd.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot


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


def spread(weight_TK: Tensor | None, index_TK: Tensor, n_rows: int) -> Tensor:
    """Weights at the rows that they are of, (T, N), added up one by one."""
    rows = [torch.zeros(n_rows, dtype=torch.float64) for _ in index_TK]
    for token, chosen in enumerate(index_TK.tolist()):
        for place, row in enumerate(chosen):
            weight = 1.0 if weight_TK is None else weight_TK[token, place].double()
            rows[token] = rows[token] + weight * one_hot(torch.tensor(row), n_rows).double()
    return torch.stack(rows)


def product_key_topk(score_H2TR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of all R * R sums of two halves, and their indices, (H, T, K)."""
    first_HTR, second_HTR = score_H2TR.double().unbind(1)
    sum_HTRR = first_HTR[..., :, None] + second_HTR[..., None, :]
    best_HTK, index_HTK = sum_HTRR.flatten(2).sort(dim=2, descending=True)
    return best_HTK[..., :k], index_HTK[..., :k]


def activated(x: Tensor, activation: str) -> Tensor:
    """act(x)."""
    x = x.double()
    return {
        "relu": lambda: x * (x > 0),
        "silu": lambda: x / (1 + torch.exp(-x)),
        "gelu": lambda: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    }[activation]()


def gated_activation(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """act(gate) * up."""
    return activated(gate, activation) * up.double()


def expert_ffn(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    weight_P: Tensor | None,
    token_P: Tensor,
    counts: list[int],
    activation: str,
) -> Tensor:
    """y[t] = sum over the pairs p of t of weight[p] * h[p] @ V of p's expert, a pair at a time."""
    expert_P = [expert for expert, count in enumerate(counts) for _ in range(count)]
    y_TD = [0 * x for x in x_TD.double()]
    for p, expert in enumerate(expert_P):
        token = int(token_P[p])
        x_D = x_TD[token].double()
        key_G = keys_BGD[expert].double() @ x_D
        if gates_BGD is None:
            h_G = activated(key_G, activation)
        else:
            h_G = gated_activation(gates_BGD[expert].double() @ x_D, key_G, activation)
        weight = 1.0 if weight_P is None else weight_P[p].double()
        y_TD[token] = y_TD[token] + weight * (h_G @ values_BGD[expert].double())
    return torch.stack(y_TD)


def output_gated_ffn(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    read: list[tuple[int, int, Tensor | float]],
    activation: str,
) -> Tensor:
    """y[t] = sum of w sigmoid(o . R) R over t's experts, R an expert's output, one at a time.

    read: token, expert and weight of each pair.
    """
    y_TD = [0 * x for x in x_TD.double()]
    for token, expert, weight in read:
        x_D = x_TD[token].double()
        key_G = keys_BGD[expert].double() @ x_D
        if gates_BGD is None:
            h_G = activated(key_G, activation)
        else:
            h_G = gated_activation(gates_BGD[expert].double() @ x_D, key_G, activation)
        out_D = h_G @ values_BGD[expert].double()
        opened = 1 / (1 + torch.exp(-(output_gate_BD[expert].double() @ out_D)))
        y_TD[token] = y_TD[token] + weight * opened * out_D
    return torch.stack(y_TD) if y_TD else x_TD.double()


def rms_norm(x_TD: Tensor, w_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * w."""
    x = x_TD.double()
    return x / (x.square().mean(1, keepdim=True) + eps).sqrt() * w_D.double()


def linear_cross_entropy(x_TD: Tensor, w_VD: Tensor, target_T: Tensor) -> Tensor:
    """Mean of -log softmax(x w^T)[target]."""
    logp_TV = torch.log_softmax(x_TD.double() @ w_VD.double().t(), dim=1)
    return -logp_TV[torch.arange(len(target_T)), target_T].mean()


def order(index: list[list[int]], n_experts: int) -> list[tuple[int, int, int]]:
    """Expert, token and choice of each pair; those of an expert by token and choice."""
    pairs = [(expert, t, k) for t, row in enumerate(index) for k, expert in enumerate(row)]
    return sorted(pairs, key=lambda pair: (pair[0], pair[1], pair[2]))


def expert_choice(
    z_TB: Tensor, bias_B: Tensor | None, index: list[list[int]], rule: Any
) -> tuple[Tensor, Tensor]:
    """Weights of the pairs in their order, (P,), and the loss, of experts that are chosen."""
    z = z_TB.double()
    soft = z.exp() / z.exp().sum(1, keepdim=True)
    p = soft if rule.softmax else 1 / (1 + torch.exp(-z))
    weights = []
    for expert, t, _ in order(index, z.shape[1]):
        total = sum(p[t, other] for other in index[t]) if rule.normalize else 1.0
        weights.append(p[t, expert] / total)
    share = p / p.sum(1, keepdim=True)
    loss = rule.z * sum(torch.log(row.exp().sum()) ** 2 for row in z) / len(z)
    for b in range(z.shape[1]):
        read = sum(row.count(b) for row in index) / sum(len(row) for row in index)
        mean = soft[:, b].mean()
        loss = loss + rule.balance * z.shape[1] * read * share[:, b].mean()
        loss = loss + rule.entropy * mean * torch.log(mean)
    return torch.stack(weights), loss
