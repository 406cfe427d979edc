"""Experts with gates on their outputs, as operators that torch knows: autograd, fake tensors, FLOP
formulas. workers.kernels.triton.output_gate_units says how.

Where all tokens read every expert the products are a library's, of all experts in one: keys and
gates in one matrix, (2 U, D), and values in another, (U, D). Routed experts have the products of
workers.kernels.triton.expert_ffn.

T tokens, D model width, B experts, G units of an expert, U = B * G units of all, X pre-activations
of a token, U or 2 U, P (token, expert) pairs sorted by expert; `end_B`, `order_P` and `start_T1`
as there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.flops import count
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.torch.output_gate import output_gated_ffn as torch_form
from workers.kernels.triton.expert_matrices import Matrices
from workers.kernels.triton.expert_products import hidden_units, input_gradient, matrix_gradients
from workers.kernels.triton.gated import gated_activation
from workers.kernels.triton.grouped import grouped_product
from workers.kernels.triton.output_gate_units import Units, output_gate_gradients, output_gates
from workers.kernels.triton.output_gate_vectors import output_vectors, output_vectors_gradient
from workers.kernels.triton.rows import weighted_row_sum


def output_gated_ffn(
    given: Operands, output_gate_BD: Tensor, pairs: Pairs, activation: str, watch: Watch | None
) -> Tensor:
    """(T, D), as workers.kernels.api.output_gate says. Accumulates in float32.

    watch: called once, with all hidden units.
    """
    if torch.compiler.is_compiling():  # which makes kernels of its own
        return torch_form(given, output_gate_BD, pairs, activation, watch)
    *tensors, weight = given
    token_P, n_tokens = pairs.token_P, given.x_TD.shape[0]
    if weight is not None and token_P is not None:
        weight = weight.flatten()
    inputs = [None if x is None else x.contiguous() for x in (*tensors, output_gate_BD, weight)]
    y_TD: Tensor
    if token_P is None:
        y_TD, pre_TX, _, u_BG = of_all_tokens(*inputs, activation)
        by_key_and_gate = _by_key_and_gate(pre_TX, u_BG)
    else:
        order = pairs.loads.end_B(token_P.device), *pairs.by_token(n_tokens)
        y_TD, key_PG, gate_PG, _ = of_pairs(*inputs, token_P, *order, activation)
        by_key_and_gate = key_PG, _if_any(gate_PG)
    if watch is not None:
        watch(_hidden(*by_key_and_gate, activation))
    return y_TD


def _hidden(key: Tensor, gate: Tensor | None, activation: str) -> Tensor:
    return ACTIVATIONS[activation](key) if gate is None else gated_activation(gate, key, activation)


def _by_key_and_gate(pre_TX: Tensor, u_BG: Tensor) -> tuple[Tensor, Tensor | None]:
    """The columns of pre-activations by key, and those by gate where there are as many more."""
    key_TU, *gate_TU = pre_TX.split(u_BG.numel(), dim=1)
    return key_TU, gate_TU[0] if gate_TU else None


def _if_any(x: Tensor) -> Tensor | None:
    """What an operator answers with in the place of None is (0,)."""
    return None if x.ndim == 1 else x


def _or_none(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x


@torch.library.custom_op("ffn_nas::output_gated_ffn", mutates_args=())
def of_all_tokens(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    weight_TB: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (T, D); the pre-activations (T, X), those by key first; keys and gates in one matrix
    (X, D), (0,) without gates; and u (B, G). All tensors are contiguous."""
    u_BG, both_XD = output_vectors(values_BGD, output_gate_BD, keys_BGD, gates_BGD)
    pre_TX = x_TD @ (keys_BGD.flatten(0, 1) if gates_BGD is None else both_XD).t()
    units = Units(*_by_key_and_gate(pre_TX, u_BG), u_BG, weight_TB, None)
    y_TD = output_gates(units, activation) @ values_BGD.flatten(0, 1)
    return y_TD, pre_TX, both_XD, u_BG


@of_all_tokens.register_fake
def _(
    x_TD: Tensor, keys_BGD: Tensor, gates_BGD: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_experts, width, inner = keys_BGD.shape
    n_made = n_experts * width * (1 if gates_BGD is None else 2)
    u_BG = keys_BGD.new_empty(n_experts, width, dtype=torch.float32)
    both = x_TD.new_empty(*((0,) if gates_BGD is None else (n_made, inner)))
    return x_TD.new_empty(x_TD.shape), x_TD.new_empty(x_TD.shape[0], n_made), both, u_BG


@torch.library.custom_op("ffn_nas::output_gated_ffn_backward", mutates_args=())
def of_all_tokens_backward(
    dy_TD: Tensor,
    pre_TX: Tensor,
    both_XD: Tensor,
    u_BG: Tensor,
    x_TD: Tensor,
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    weight_TB: Tensor | None,
    activation: str,
) -> list[Tensor]:
    """Gradients in x, in keys and gates in one matrix (X, D), in values, the output gate and the
    weight, (0,) without one."""
    dy_TD, values_UD = dy_TD.contiguous(), values_BGD.flatten(0, 1)
    units = Units(*_by_key_and_gate(pre_TX, u_BG), u_BG, weight_TB, None)
    dpre_TX = pre_TX.new_empty(pre_TX.shape)
    room = _by_key_and_gate(dpre_TX, u_BG)
    made = output_gate_gradients(units, dy_TD @ values_UD.t(), room, activation)
    dvalues_BGD = (made.h_PX.t() @ dy_TD).view(values_BGD.shape)
    do_BD = output_vectors_gradient(values_BGD, output_gate_BD, made.du_MG, dvalues_BGD, None, 1)
    dx_TD, dboth_XD = dpre_TX @ both_XD, dpre_TX.t() @ x_TD
    return [dx_TD, dboth_XD, dvalues_BGD, do_BD, _or_none(made.dweight, dy_TD)]


@of_all_tokens_backward.register_fake
def _(
    dy_TD: Tensor, pre_TX: Tensor, both_XD: Tensor, u_BG: Tensor, x_TD: Tensor, *rest: Any
) -> list[Tensor]:
    *given, weight_TB, _ = rest
    like = (x_TD, both_XD, *given, *(() if weight_TB is None else (weight_TB,)))
    made = [x.new_empty(x.shape) for x in like]
    return made if weight_TB is not None else [*made, dy_TD.new_empty(0)]


def _all_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
    x_TD, keys_BGD, gates_BGD, *rest, ctx.activation = inputs
    _, pre_TX, both_XD, u_BG = output
    ctx.shape, ctx.gated = keys_BGD.shape, gates_BGD is not None
    ctx.mark_non_differentiable(pre_TX, both_XD, u_BG)
    # Outputs that are kept for backward have no gradient, and zeros for them would be made.
    ctx.set_materialize_grads(False)
    both_XD = both_XD if ctx.gated else keys_BGD.flatten(0, 1)
    ctx.save_for_backward(pre_TX, both_XD, u_BG, x_TD, *rest)


def _all_backward(ctx: Any, dy_TD: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    *kept, weight_TB = ctx.saved_tensors
    grads = of_all_tokens_backward(dy_TD, *kept, weight_TB, ctx.activation)
    dx_TD, dboth_XD, dvalues_BGD, do_BD, dweight_TB = grads
    dkeys, *dgates = dboth_XD.view(-1, *ctx.shape).unbind(0)
    dweight = None if weight_TB is None else dweight_TB
    return dx_TD, dkeys, dgates[0] if dgates else None, dvalues_BGD, do_BD, dweight, None


of_all_tokens.register_autograd(_all_backward, setup_context=_all_context)


@torch.library.custom_op("ffn_nas::output_gated_pairs", mutates_args=())
def of_pairs(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    weight_P: Tensor | None,
    token_P: Tensor,
    end_B: Tensor,
    order_P: Tensor,
    start_T1: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (T, D), the pre-activations by key and by gate, (P, G) each, (0,) without gates; and u
    (B, G). All tensors are contiguous."""
    matrices = Matrices(keys_BGD, gates_BGD, values_BGD)
    u_BG, _ = output_vectors(values_BGD, output_gate_BD, keys_BGD, None)
    key_PG, gate_PG, h_PG = hidden_units(x_TD, matrices, token_P, end_B, activation)
    units = Units(key_PG, _if_any(gate_PG), u_BG, weight_P, end_B)
    scale_P = output_gates(units, activation)
    o_PD = grouped_product(h_PG, values_BGD, end_B)
    y_TD = weighted_row_sum(scale_P, o_PD, order_P, start_T1, n_tokens=len(x_TD), by_row=True)
    return y_TD, key_PG, gate_PG, u_BG


@of_pairs.register_fake
def _(
    x_TD: Tensor, keys_BGD: Tensor, gates_BGD: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_pairs, (n_experts, width, _) = rest[3].shape[0], keys_BGD.shape
    key_PG = x_TD.new_empty(n_pairs, width)
    gate_PG = key_PG.new_empty(0) if gates_BGD is None else torch.empty_like(key_PG)
    u_BG = keys_BGD.new_empty(n_experts, width, dtype=torch.float32)
    return x_TD.new_empty(x_TD.shape), key_PG, gate_PG, u_BG


@torch.library.custom_op("ffn_nas::output_gated_pairs_backward", mutates_args=())
def of_pairs_backward(
    dy_TD: Tensor,
    key_PG: Tensor,
    gate_PG: Tensor,
    u_BG: Tensor,
    token_P: Tensor,
    end_B: Tensor,
    order_P: Tensor,
    start_T1: Tensor,
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    weight_P: Tensor | None,
    activation: str,
) -> list[Tensor]:
    """Gradients in x, keys, gates, values, the output gate and the weight; (0,) for what is
    None."""
    dy_TD, matrices = dy_TD.contiguous(), Matrices(keys_BGD, gates_BGD, values_BGD)
    p_PG = grouped_product(dy_TD, values_BGD.transpose(1, 2), end_B, token_P=token_P)
    units = Units(key_PG, _if_any(gate_PG), u_BG, weight_P, end_B)
    dkey, dgate = torch.empty_like(key_PG), None if gates_BGD is None else torch.empty_like(gate_PG)
    made = output_gate_gradients(units, p_PG, (dkey, dgate), activation)
    h_and_both = made.h_PX, dkey, dgate
    grads = matrix_gradients(h_and_both, x_TD, dy_TD, matrices, token_P, end_B)
    do_BD = output_vectors_gradient(
        values_BGD, output_gate_BD, made.du_MG, grads.values_BGD, end_B, units.run
    )
    dx_PD = input_gradient(dkey, dgate, matrices, end_B)
    dx_TD = weighted_row_sum(None, dx_PD, order_P, start_T1, n_tokens=len(x_TD))
    return [_or_none(d, dy_TD) for d in (dx_TD, *grads[:3], do_BD, made.dweight)]


@of_pairs_backward.register_fake
def _(dy_TD: Tensor, *inputs: Any) -> list[Tensor]:
    return [dy_TD.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs[7:13]]


def _pairs_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.activation = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # as above
    ctx.save_for_backward(*output[1:], *tensors[6:], *tensors[:6])


def _pairs_backward(ctx: Any, dy_TD: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = of_pairs_backward(dy_TD, *tensors, ctx.activation)
    wanted = (d if x is not None else None for d, x in zip(grads, tensors[7:], strict=True))
    return *wanted, *[None] * 5


of_pairs.register_autograd(_pairs_backward, setup_context=_pairs_context)

for operator in ("output_gated_ffn", "output_gated_pairs"):
    count(getattr(torch.ops.ffn_nas, operator))
    count(getattr(torch.ops.ffn_nas, f"{operator}_backward"))
