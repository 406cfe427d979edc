"""Slow obvious forms of every FFN design, a token and a block at a time.

They read a layer's tensors by name and share no code with the layers. Autograd through them gives
the gradients to expect. Shapes are those of the layers' parameters.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from search_space.spec import FFNSpec

Tensors = dict[str, Tensor]
Picks = list[list[tuple[int, Tensor]]]  # by token: (block, weight)


def ffn(
    spec: FFNSpec, tensors: Tensors, x_TD: Tensor, ids_T: Tensor, training: bool
) -> tuple[Tensor, Tensor | None]:
    """The output (T, D) and the auxiliary loss of the whole FFN."""
    losses = []
    for j in range(spec.depth):
        prefix = f"layers.{j}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        x_TD, loss = sub_layer(spec, own, x_TD, ids_T, training)
        losses += [] if loss is None else [loss]
    return x_TD, sum(losses) / spec.depth if losses else None


def sub_layer(
    spec: FFNSpec, t: Tensors, x_TD: Tensor, ids_T: Tensor, training: bool
) -> tuple[Tensor, Tensor | None]:
    n_TD = torch.stack([x / torch.sqrt((x * x).mean() + 1e-6) * t["norm.weight"] for x in x_TD])
    picks, loss = SELECT[spec.method](spec, t, n_TD, ids_T, training)
    rows = []
    for x, n, chosen in zip(x_TD, n_TD, picks, strict=True):
        y = x
        for block, weight in chosen:
            y = y + weight * block_output(spec, t, "experts.", n, block)
        if spec.shared_width:
            y = y + block_output(spec, t, "shared.", n, 0)
        rows.append(y)
    return torch.stack(rows), loss


def block_output(spec: FFNSpec, t: Tensors, where: str, n: Tensor, block: int) -> Tensor:
    values = t[where + "values_BGD"][block]
    if where + "keys_BGD" not in t:  # a bag of value rows
        return values[0]
    hidden = t[where + "keys_BGD"][block] @ n
    if spec.gated:
        hidden = activation(spec.activation, t[where + "gates_BGD"][block] @ n) * hidden
    else:
        hidden = activation(spec.activation, hidden)
    out = hidden @ values
    if where + "output_gate_BD" in t:
        out = out * sigmoid((out * t[where + "output_gate_BD"][block]).sum())
    return out


def activation(name: str, a: Tensor) -> Tensor:
    if name == "gelu":
        return a * (1 + torch.erf(a / math.sqrt(2))) / 2
    if name == "silu":
        return a * sigmoid(a)
    return torch.where(a > 0, a, torch.zeros_like(a))


def sigmoid(a: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-a))


def softmax(z: Tensor) -> Tensor:
    e = torch.exp(z - z.max().detach())
    return e / e.sum()


def largest(scores: Tensor, k: int) -> list[int]:
    values = scores.tolist()
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def one(x: Tensor) -> Tensor:
    return torch.ones((), dtype=x.dtype)


def dense(spec, t, n_TD, ids_T, training) -> tuple[Picks, None]:
    return [[(b, one(n)) for b in range(spec.n_experts)] for n in n_TD], None


def topk(spec, t, n_TD, ids_T, training) -> tuple[Picks, Tensor | None]:
    knobs, picks, probabilities, logits = spec.selection, [], [], []
    for n in n_TD:
        z = t["selection.router.weight_BD"] @ n
        p = softmax(z) if knobs.gate == "softmax" else sigmoid(z)
        chosen = largest(p + t["selection.bias_B"] if knobs.bias_rate else p, knobs.k)
        total = sum(p[b] for b in chosen) if knobs.normalize else one(n)
        picks.append([(b, p[b] / total) for b in chosen])
        probabilities.append(p)
        logits.append(z)
    if not training:
        return picks, None
    loss, B, T = torch.zeros((), dtype=n_TD.dtype), spec.n_experts, len(n_TD)
    for b in range(B):
        load = sum(b == other for chosen in picks for other, _ in chosen) / (T * knobs.k)
        share = sum((p[b] if knobs.gate == "softmax" else p[b] / p.sum()) for p in probabilities)
        loss = loss + knobs.balance_weight * B * load * share / T
        mean = sum(softmax(z)[b] for z in logits) / T
        loss = loss + knobs.entropy_weight * mean * torch.log(mean)
    for z in logits:
        loss = loss + knobs.z_weight * torch.log(torch.exp(z).sum()) ** 2 / T
    return picks, loss


def hash_tables(spec, t, n_TD, ids_T, training) -> tuple[Picks, None]:
    tables = t["selection.table_KV"].tolist()
    return [[(table[i], one(n_TD)) for table in tables] for i in ids_T.tolist()], None


def avgk(spec, t, n_TD, ids_T, training) -> tuple[Picks, None]:
    scored = t["experts.gates_BGD" if spec.gated else "experts.keys_BGD"].detach()
    picks = []
    for n in n_TD.detach():
        scores = torch.stack([rows.sum(0) @ n / len(rows) for rows in scored])
        picks.append([(b, one(n)) for b in largest(scores, spec.selection.k)])
    return picks, None


def direct(spec, t, n_TD, ids_T, training) -> tuple[Picks, None]:
    scored = t["experts.gates_BGD" if spec.gated else "experts.keys_BGD"].detach()
    return [
        [(b, one(n)) for b in largest(scored[:, 0] @ n, spec.selection.k)] for n in n_TD.detach()
    ], None


def product_key(spec, t, n_TD, ids_T, training) -> tuple[Picks, None]:
    knobs, root = spec.selection, math.isqrt(spec.n_experts)
    half = knobs.key_dim // 2
    picks: Picks = [[] for _ in n_TD]
    for h in range(knobs.heads):
        first, second = t["selection.sub_keys_H2RC"][h]
        for chosen, q in zip(picks, queries(knobs, t, h, n_TD, training), strict=True):
            pairs = itertools.product(range(root), repeat=2)
            scores = torch.stack([q[:half] @ first[a] + q[half:] @ second[b] for a, b in pairs])
            best = largest(scores, knobs.k)
            kept = scores[best]
            weights = softmax(kept) if knobs.gate == "softmax" else sigmoid(kept)
            chosen += list(zip(best, weights, strict=True))
    return picks, None


def queries(knobs, t, h, n_TD, training) -> Tensor:
    q_TC = torch.stack([t["selection.query_HCD"][h] @ n for n in n_TD])
    if knobs.query_norm == "none":
        return q_TC
    if knobs.query_norm == "layer":
        centred = q_TC - q_TC.mean(1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-5)
    if training and len(q_TC) > 1:
        mean, var = q_TC.mean(0), ((q_TC - q_TC.mean(0)) ** 2).mean(0)
    else:
        span = slice(h * knobs.key_dim, (h + 1) * knobs.key_dim)
        mean, var = t["selection.norm.mean_Q"][span], t["selection.norm.var_Q"][span]
    return (q_TC - mean) / torch.sqrt(var + 1e-5)


def straight_through(spec, t, n_TD, ids_T, training) -> tuple[Picks, Tensor | None]:
    knobs, B, picks, total = spec.selection, spec.n_experts, [], 0.0
    for n in n_TD:
        p = sigmoid(t["selection.router.weight_BD"] @ n)
        above = [b for b in range(B) if p[b] > knobs.tau]
        opened = above or largest(p, 1)
        scale = B / len(opened) if knobs.renormalize else 1.0
        value = [p[b].detach() if b in opened else torch.zeros_like(p[b]) for b in range(B)]
        if training:
            gate = [value[b] + p[b] - p[b].detach() for b in range(B)]
            picks.append([(b, scale * gate[b]) for b in range(B)])
            # G is p above tau and 0 below it, whatever is opened; its gradient is that of p.
            total = total + sum(p[b] if b in above else p[b] - p[b].detach() for b in range(B))
        else:
            picks.append([(b, scale * p[b]) for b in opened])
    loss = knobs.sparsity_weight * total / (B * len(n_TD)) if training else None
    return picks, loss


def relu_routing(spec, t, n_TD, ids_T, training) -> tuple[Picks, Tensor | None]:
    picks, total = [], torch.zeros((), dtype=n_TD.dtype)
    for n in n_TD:
        z = t["selection.router.weight_BD"] @ n
        picks.append([(b, z[b]) for b in range(spec.n_experts) if z[b] > 0])
        total = total + sum(w for _, w in picks[-1])
    mean = total / (spec.n_experts * len(n_TD))
    return picks, t["selection.l1_coefficient"] * mean if training else None


SELECT = {
    "dense": dense,
    "topk": topk,
    "hash": hash_tables,
    "avgk": avgk,
    "direct": direct,
    "product_key": product_key,
    "straight_through": straight_through,
    "relu_routing": relu_routing,
}
