"""Experts with gates on their outputs: y[t] = sum of w r_b R_b over the experts b that t reads, of
R_b = act(x K_b^T) V_b and r_b = sigmoid(o_b . R_b) (Finedeep, arXiv 2502.12928).

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by expert,
C weights of a row.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.api.mixed import lowered
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.place import kind
from workers.kernels.torch.output_gate import output_gated_ffn as torch_form


def output_gated_ffn(
    x_TD: Tensor,
    keys_BGD: Tensor,
    gates_BGD: Tensor | None,
    values_BGD: Tensor,
    output_gate_BD: Tensor,
    pairs: Pairs,
    weight_PC: Tensor | None,
    activation: str,
    watch: Watch | None = None,
) -> Tensor:
    """(T, D): y[t] = sum over the experts b that t reads of w r_b R_b; with gates,
    act(x G_b^T) * (x K_b^T) in act's place.

    Differentiable once in x, the three matrices, the output gate and the weight. FLOPs 2 P G D a
    matrix and 2 P D, and twice that backward.

    x_TD: (T, D).
    keys_BGD: K, (B, G, D).
    gates_BGD: G, (B, G, D).
    values_BGD: V, (B, G, D).
    output_gate_BD: o, (B, D), of any dtype.
    pairs: which token reads which expert; without tokens all of them read every expert.
    weight_PC: (P, 1), or (T, B) where all tokens read every expert; None for ones.
    activation: a name of workers.kernels.activations.
    watch: called with the hidden units of all pairs: (P, G), or (T, B * G).
    """
    given = Operands(x_TD, keys_BGD, gates_BGD, values_BGD, weight_PC)
    if kind(x_TD) != "cpu":  # there autocast sees what the torch form multiplies
        given = Operands._make((*(None if x is None else lowered(x) for x in given[:4]), weight_PC))
    # A GPU's kernels take gates and weights as they are, whatever they multiply.
    factors = [x for x in given[:4] if x is not None]
    run = form("output_gated_ffn", torch_form, *factors)
    return run(given, output_gate_BD, pairs, activation, watch)
