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
from workers.kernels.pairs import Operands, Pairs, SharedMatrices, Watch
from workers.kernels.triton.expert_matrices import Matrices
from workers.kernels.triton.expert_products import hidden_units, input_gradient, matrix_gradients
from workers.kernels.triton.gated import gated_activation, hidden_gradients
from workers.kernels.triton.grouped import grouped_product
from workers.kernels.triton.rows import weighted_row_sum


def expert_ffn(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says, of pairs with tokens and one weight each.

    watch: called once, with h of all pairs. Accumulates in float32.
    """
    y_TD, key_PG, gate_PG = _called(given, (None, None, None), pairs, activation)
    if watch is not None:
        watch(_hidden(key_PG, gate_PG, activation))
    return y_TD


def joint_ffn(given: Operands, shared: SharedMatrices, pairs: Pairs, activation: str) -> Tensor:
    """(T, D), the same with experts whose matrices lie by themselves, the last of the pairs'."""
    return _called(given, shared, pairs, activation)[0]


def _called(
    given: Operands, shared: SharedMatrices, pairs: Pairs, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
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
        *shared,
    )
    return found


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
    keys_AGD: Tensor | None,
    gates_AGD: Tensor | None,
    values_AGD: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (T, D), and the pre-activations by key and by gate, (P, G) each; (0,) without gates."""
    x_TD, n_tokens = x_TD.contiguous(), x_TD.shape[0]
    matrices = _matrices((keys_BGD, gates_BGD, values_BGD), (keys_AGD, gates_AGD, values_AGD))
    key_PG, gate_PG, h_PG = hidden_units(x_TD, matrices, token_P, end_B, activation)
    last = None if matrices.shared is None else matrices.shared.values_BGD
    o_PD = grouped_product(h_PG, matrices.values_BGD, end_B, shared_AIO=last)
    y_TD = weighted_row_sum(weight_P, o_PD, order_P, start_T1, n_tokens=n_tokens, by_row=True)
    return y_TD, key_PG, gate_PG


def _matrices(
    own: tuple[Tensor, Tensor | None, Tensor], shared: tuple[Tensor | None, ...]
) -> Matrices:
    """The experts' and the last ones', where there are some."""
    keys, gates, values = shared
    if keys is None or values is None:
        return Matrices.of(*own)
    return Matrices.of(*own)._replace(shared=Matrices.of(keys, gates, values))


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
    keys_AGD: Tensor | None,
    gates_AGD: Tensor | None,
    values_AGD: Tensor | None,
) -> list[Tensor]:
    """Gradients in x, keys, gates, values, weight, and the last experts' keys, gates and values;
    (0,) for what is None."""
    dy_TD, x_TD = dy_TD.contiguous(), x_TD.contiguous()
    matrices = _matrices((keys_BGD, gates_BGD, values_BGD), (keys_AGD, gates_AGD, values_AGD))
    last = None if matrices.shared is None else matrices.shared.values_BGD.transpose(1, 2)
    by_unit = matrices.values_BGD.transpose(1, 2)
    dh_PG = grouped_product(dy_TD, by_unit, end_B, token_P=token_P, shared_AIO=last)
    gate = None if gates_BGD is None else gate_PG
    h_PG, dkey_PG, dgate_PG, dweight_P = hidden_gradients(
        key_PG, gate, dh_PG, weight_P, end_B[-1:], activation
    )
    units = h_PG, dkey_PG, dgate_PG
    made = matrix_gradients(units, x_TD, dy_TD, matrices, token_P, end_B)
    dx_PD = input_gradient(dkey_PG, dgate_PG, matrices, end_B)
    dx_TD = weighted_row_sum(None, dx_PD, order_P, start_T1, n_tokens=x_TD.shape[0])
    shared = (None, None, None) if made.shared is None else made.shared[:3]
    grads = (dx_TD, *made[:3], dweight_P, *shared)
    return [dh_PG.new_empty(0) if d is None else d for d in grads]


@expert_ffn_backward.register_fake
def _(dy_TD: Tensor, key_PG: Tensor, gate_PG: Tensor, *inputs: Any) -> list[Tensor]:
    given = *inputs[:5], *inputs[10:]
    return [dy_TD.new_empty(0) if x is None else x.new_empty(x.shape) for x in given]


def _context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.activation = inputs[9]
    ctx.mark_non_differentiable(*output[1:])
    # Outputs that are kept for backward have no gradient, and zeros for them would be made.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:], *inputs[:9], *inputs[10:])


def _backward(ctx: Any, dy_TD: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = expert_ffn_backward(dy_TD, *tensors[:11], ctx.activation, *tensors[11:])
    given = *tensors[2:7], *tensors[11:]
    wanted = [d if x is not None else None for d, x in zip(grads, given, strict=True)]
    return *wanted[:5], *[None] * 5, *wanted[5:]


expert_ffn_forward.register_autograd(_backward, setup_context=_context)


def _hidden(key_PG: Tensor, gate_PG: Tensor, activation: str) -> Tensor:
    # By dims, not by size: the gates of no pairs are (0, G).
    if gate_PG.ndim == 1:
        return ACTIVATIONS[activation](key_PG)
    return gated_activation(gate_PG, key_PG, activation)


count(torch.ops.ffn_nas.expert_ffn)
count(torch.ops.ffn_nas.expert_ffn_backward)
