"""Routed experts as operators that torch knows: autograd, fake tensors, FLOP formulas.

The vocabulary of workers.kernels.api.expert_ffn. The products read the tokens in place, so no
(P, D) copy of x exists. `end_B` is the cumulative sum of the experts' counts, `order_P` lists the
pairs by token, and in it each token's begin at `start_T1`, whose last says where all end. P may be
more than there are pairs: what lies beyond is room.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.flops import count
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.triton.expert_products import hidden_units, input_gradient, matrix_gradients
from workers.kernels.triton.gated import gated_activation, hidden_gradients
from workers.kernels.triton.grouped import grouped_product
from workers.kernels.triton.rows import weighted_row_sum


def expert_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says, of pairs with tokens and one weight each.

    watch: called once, with h of all pairs. Accumulates in float32.
    """
    *tensors, weight_P1 = given
    token_P, x_TD = pairs.token_P, given.x_TD
    assert token_P is not None
    found: tuple[Tensor, Tensor, Tensor] = expert_ffn_forward(
        *tensors,
        None if weight_P1 is None else weight_P1.flatten(),
        token_P,
        pairs.loads.end_B(x_TD.device),
        *pairs.by_token(x_TD.shape[0]),
        activation,
    )
    y_TD, key_PG, gate_PG = found
    if watch is not None:
        watch(_hidden(key_PG, gate_PG, activation))
    return y_TD


@torch.library.custom_op("ffn_nas::expert_ffn", mutates_args=())
def expert_ffn_forward(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    weight_P: Tensor | None,
    token_P: Tensor,
    end_B: Tensor,
    order_P: Tensor,
    start_T1: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (T, D), and the pre-activations by key and by gate, (P, G) each; (0,) without gates."""
    x_TD, gates = x_TD.contiguous(), None if gates_BGD is None else gates_BGD.contiguous()
    key_PG, gate_PG, h_PG = hidden_units(
        x_TD, keys_BGD.contiguous(), gates, token_P, end_B, activation
    )
    o_PD = grouped_product(h_PG, values_BGD, end_B)
    n_tokens = x_TD.shape[0]
    y_TD = weighted_row_sum(weight_P, o_PD, order_P, start_T1, n_tokens=n_tokens, by_row=True)
    return y_TD, key_PG, gate_PG


@expert_ffn_forward.register_fake
def _(
    x_TD: Tensor, keys_BGD: Tensor, gates_BGD: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    _, _, token_P, *_ = rest
    key_PG = x_TD.new_empty(token_P.shape[0], keys_BGD.shape[1])
    gate_PG = key_PG.new_empty(0) if gates_BGD is None else torch.empty_like(key_PG)
    return x_TD.new_empty(x_TD.shape), key_PG, gate_PG


@torch.library.custom_op("ffn_nas::expert_ffn_backward", mutates_args=())
def expert_ffn_backward(
    dy_TD: Tensor,
    key_PG: Tensor,
    gate_PG: Tensor,
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    weight_P: Tensor | None,
    token_P: Tensor,
    end_B: Tensor,
    order_P: Tensor,
    start_T1: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients in x, keys, gates, values and weight; (0,) for what is None."""
    dy_TD, x_TD = dy_TD.contiguous(), x_TD.contiguous()
    keys, gates = keys_BGD.contiguous(), None if gates_BGD is None else gates_BGD.contiguous()
    dh_PG = grouped_product(dy_TD, values_BGD.transpose(1, 2), end_B, token_P=token_P)
    h_PG, dkey_PG, dgate_PG, dweight_P = hidden_gradients(
        key_PG, None if gates is None else gate_PG, dh_PG, weight_P, end_B[-1:], activation
    )
    dvalues_BGD, dkeys_BGD, dgates_BGD = matrix_gradients(
        h_PG, dkey_PG, dgate_PG, x_TD, dy_TD, keys, token_P, end_B
    )
    dx_PD = input_gradient(dkey_PG, dgate_PG, keys, gates, end_B)
    dx_TD = weighted_row_sum(None, dx_PD, order_P, start_T1, n_tokens=x_TD.shape[0])
    none = dh_PG.new_empty(0)
    return dx_TD, dkeys_BGD, dgates_BGD, dvalues_BGD, none if dweight_P is None else dweight_P


@expert_ffn_backward.register_fake
def _(dy_TD: Tensor, key_PG: Tensor, gate_PG: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    given = inputs[:5]
    return tuple(dy_TD.new_empty(0) if x is None else x.new_empty(x.shape) for x in given)


def _context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.activation = inputs
    ctx.mark_non_differentiable(*output[1:])
    # Outputs that are kept for backward have no gradient, and zeros for them would be made.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:], *tensors)


def _backward(ctx: Any, dy_TD: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = expert_ffn_backward(dy_TD, *tensors, ctx.activation)
    given = (x is not None for x in tensors[2:7])
    return *(d if there else None for d, there in zip(grads, given, strict=True)), *[None] * 5


expert_ffn_forward.register_autograd(_backward, setup_context=_context)


def _hidden(key_PG: Tensor, gate_PG: Tensor, activation: str) -> Tensor:
    # By dims, not by size: the gates of no pairs are (0, G).
    if gate_PG.ndim == 1:
        return ACTIVATIONS[activation](key_PG)
    return gated_activation(gate_PG, key_PG, activation)


count(torch.ops.ffn_nas.expert_ffn)
count(torch.ops.ffn_nas.expert_ffn_backward)
