"""Experts over the tokens that read them: y[t] = sum of w act(x K^T) V over t's pairs.

Backward keeps the input and the pre-activations and makes the rest anew; no (pairs, D) tensor
exists.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by
expert, C weights of a pair, each for G / C units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.pairs import Pairs, Watch
from workers.kernels.torch.expert_ffn import expert_ffn as torch_form


def expert_ffn(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    pairs: Pairs,
    weight_PC: Tensor | None,
    activation: str,
    watch: Watch | None = None,
) -> Tensor:
    """(T, D): y[t] = sum over the pairs p of t, of expert b: (w_p h_p) V_b, with h = act(x K_b^T),
    or act(x G_b^T) * (x K_b^T) with gates.

    Differentiable once in x, the three matrices and the weight. FLOPs 2 P G D a matrix, and twice
    that backward.

    x_TD: (T, D).
    keys_BGD: K, (B, G, D).
    gates_BGD: G, (B, G, D).
    values_BGD: V, (B, G, D).
    pairs: which token reads which expert.
    weight_PC: (P, C), or None for ones.
    activation: a name of workers.kernels.activations.
    watch: called with h of all pairs, in one or several parts.
    """
    if torch.is_autocast_enabled(x_TD.device.type):
        dtype = torch.get_autocast_dtype(x_TD.device.type)
        x_TD, keys_BGD, values_BGD = (x.to(dtype) for x in (x_TD, keys_BGD, values_BGD))
        gates_BGD = None if gates_BGD is None else gates_BGD.to(dtype)
        weight_PC = None if weight_PC is None else weight_PC.to(dtype)
    routed = pairs.token_P is not None and (weight_PC is None or weight_PC.shape[1] == 1)
    tensors = (x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC)
    given = (x for x in tensors if x is not None)
    dense = pairs.token_P is None and weight_PC is None
    name = "expert_ffn" if routed else "dense_ffn" if dense else "plain_ffn"
    run = form(name, torch_form, *given, size=keys_BGD.shape[1])
    return run(x_TD, keys_BGD, gates_BGD, values_BGD, pairs, weight_PC, activation, watch)
