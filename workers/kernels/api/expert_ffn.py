"""Experts over the tokens that read them: y[t] = sum of w act(x K^T) V over t's pairs.

Backward keeps the input and the pre-activations and makes the rest anew; no (pairs, D) tensor
exists.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by
expert, C weights of a pair, each for G / C units.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form, most_mixed_units
from workers.kernels.api.mixed import lowered, product_dtype
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.place import kind
from workers.kernels.torch.expert_ffn import expert_ffn as torch_form
from workers.kernels.torch.expert_ffn import joint_ffn as torch_joint

Matrices = tuple[Tensor, Tensor | None, Tensor]


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
    given = Operands(x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC)
    routed = pairs.token_P is not None and (weight_PC is None or weight_PC.shape[1] == 1)
    dense = pairs.token_P is None and weight_PC is None
    name = "expert_ffn" if routed else "dense_ffn" if dense else "plain_ffn"
    width = keys_BGD.shape[1]
    # A CPU's own form rounds the factors of its large products alone, itself; where the processor
    # multiplies none narrow, it is still faster than a library for few units (docs/speed.md).
    on_cpu = kind(x_TD) == "cpu"
    mixed = routed and product_dtype(x_TD) != x_TD.dtype
    whole = not mixed or width <= most_mixed_units()
    own = on_cpu and whole and form(name, torch_form, x_TD, keys_BGD, size=width) is not torch_form
    if not own:
        # A GPU's kernels weigh in float32, whatever they multiply.
        weight = lowered(weight_PC) if on_cpu and weight_PC is not None else weight_PC
        low = (None if x is None else lowered(x) for x in given[:4])
        given = Operands._make((*low, weight))
    counted = given if on_cpu else given[:4]
    run = form(name, torch_form, *(x for x in counted if x is not None), size=width)
    return run(_of_one_type(given) if run is torch_form else given, pairs, activation, watch)


def _of_one_type(given: Operands) -> Operands:
    """The weight in the input's type, as torch's products want it."""
    weight = given.weight_PC
    return given if weight is None else given._replace(weight_PC=weight.to(given.x_TD.dtype))


def joint_ffn(
    x_TD: Tensor,
    own: Matrices,
    shared: Matrices,
    pairs: Pairs,
    weight_P1: Tensor,
    activation: str,
) -> Tensor:
    """`expert_ffn` of experts whose last lie by themselves, of as many units: shared ones.

    own, shared: keys, gates and values, (B, G, D) and (A, G, D) each; gates all or none.
    pairs: of B + A experts.
    weight_P1: (P, 1).
    """
    low = (None if x is None else lowered(x) for x in (x_TD, *own))
    given = Operands._make((*low, weight_P1))
    keys, gates, values = (None if x is None else lowered(x) for x in shared)
    present = [x for x in (*given[:4], keys, gates, values) if x is not None]
    run = form("joint_ffn", torch_joint, *present)
    given = _of_one_type(given) if run is torch_joint else given
    return run(given, (keys, gates, values), pairs, activation)
