"""Operations at one size, each as every form that computes it: ours, torch's, other libraries'.

T tokens, P (token, expert) pairs, B experts, D width, G hidden units of an expert, N table rows.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu_case import TOY, Case, Maker, Sizes, both
from benchmarks.gpu_table_cases import much_of_a_table, product_keys, table_reads
from workers.kernels.api.grouped import grouped_mm
from workers.kernels.torch.grouped import weight_gradient
from workers.kernels.triton import (
    cross_entropy,
    gated,
    grouped,
    residual_norm,
    rms_norm,
)
from workers.layers.experts import Experts
from workers.layers.routing import Full, Ragged


def cases(device: str, dtype: torch.dtype, toy: bool) -> Iterator[Case]:
    """All operations, one at a time so that only one's tensors are alive."""
    make, sizes = Maker(device, dtype), TOY if toy else Sizes()
    for case in (
        products,
        layer,
        gated_outputs,
        table_reads,
        much_of_a_table,
        product_keys,
        activations,
        norms,
        losses,
    ):
        yield from case(make, sizes)


def products(make: Maker, n: Sizes) -> Iterator[Case]:
    n_pairs, size = n.tokens * n.k, torch.tensor([], dtype=make.dtype).element_size()
    x_PD = make.normal(n_pairs, n.width)
    w_BDG = make.normal(n.experts, n.width, n.hidden, scale=n.width**-0.5)
    dy_PG = make.normal(n_pairs, n.hidden)
    counts_B = torch.bincount(make.below(n.experts, n_pairs), minlength=n.experts)
    counts, end_B = counts_B.tolist(), counts_B.cumsum(0)
    ends = end_B.to(torch.int32)
    moved = size * (x_PD.numel() + w_BDG.numel() + dy_PG.numel())
    flops = 2.0 * n_pairs * n.width * n.hidden
    token_P = make.below(n.tokens, n_pairs)

    def exact() -> Tensor:
        return grouped_mm(x_PD.double(), w_BDG.double(), counts)

    def exact_gradient() -> Tensor:
        parts = zip(x_PD.double().split(counts), dy_PG.double().split(counts), strict=True)
        return torch.stack([x.t() @ dy for x, dy in parts])

    forms = both(lambda: grouped_mm(x_PD, w_BDG, counts))
    forms["F.grouped_mm"] = lambda: F.grouped_mm(x_PD, w_BDG, offs=ends)
    yield Case("grouped product", forms, exact, moved, flops)
    yield Case(
        "grouped product, gather fused",
        {
            "triton": lambda: grouped.grouped_product(x_PD, w_BDG, end_B, token_P=token_P),
            "torch, gather apart": lambda: grouped_mm(x_PD[token_P], w_BDG, counts),
        },
        lambda: grouped_mm(x_PD[token_P].double(), w_BDG.double(), counts),
        moved,
        flops,
    )
    yield Case(
        "weight gradient",
        {
            "triton": lambda: grouped.grouped_weight_gradient(x_PD, dy_PG, w_BDG, end_B),
            "torch": lambda: weight_gradient(x_PD, dy_PG, w_BDG, counts),
        },
        exact_gradient,
        moved,
        flops,
    )


def layer(make: Maker, n: Sizes) -> Iterator[Case]:
    """A whole gated expert layer, beside the one that transformers runs for OLMoE."""
    from transformers import OlmoeConfig
    from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

    place = {"device": make.device, "dtype": make.dtype}
    ours = Experts(n.width, n.experts, n.hidden, activation="silu", gated=True).to(**place)
    nn.init.normal_(ours.values_BGD, std=n.hidden**-0.5)
    config = OlmoeConfig(
        hidden_size=n.width,
        intermediate_size=n.hidden,
        num_experts=n.experts,
        num_local_experts=n.experts,
        experts_implementation="grouped_mm",
    )
    theirs = OlmoeExperts(config).to(**place)
    with torch.no_grad():
        theirs.gate_up_proj.copy_(torch.cat([ours.gates_BGD, ours.keys_BGD], dim=1))
        theirs.down_proj.copy_(ours.values_BGD.transpose(1, 2))
    exact = Experts(n.width, n.experts, n.hidden, activation="silu", gated=True)
    exact = exact.to(make.device, torch.float64)
    exact.load_state_dict(ours.state_dict())
    x_TD = make.normal(n.tokens, n.width)
    noise_TB = torch.rand(n.tokens, n.experts, device=make.device, generator=make.generator)
    weight_TK, index_TK = noise_TB.topk(n.k, dim=1)
    weight_TK = weight_TK.to(make.dtype)
    routing = Ragged.from_choices(index_TK, weight_TK, n.experts)
    forms = both(lambda: ours(x_TD, routing))
    forms["transformers"] = lambda: theirs(x_TD, index_TK, weight_TK)
    if importlib.util.find_spec("scattermoe"):
        from scattermoe.mlp import GLUMLP

        scattered = GLUMLP(n.width, n.hidden, n.experts, n.k, activation=nn.SiLU()).to(**place)
        forms["scattermoe"] = lambda: scattered(x_TD, weight_TK, index_TK)
    weights = 3 * ours.keys_BGD.numel() * x_TD.element_size()
    moved = weights + 2 * x_TD.numel() * x_TD.element_size()
    flops = 6.0 * n.tokens * n.k * n.width * n.hidden
    with torch.no_grad():
        yield Case("expert layer", forms, lambda: exact(x_TD.double(), routing), moved, flops)


def gated_outputs(make: Maker, n: Sizes) -> Iterator[Case]:
    """A Finedeep sub-layer: four experts that all tokens read, with gates on their outputs."""
    ours = Experts(n.width, 4, n.hidden, activation="silu", gated=True, output_gate=True)
    for parameter in (ours.values_BGD, ours.output_gate_BD):
        nn.init.normal_(parameter, std=n.hidden**-0.5)
    exact = copy.deepcopy(ours.to(make.device, make.dtype)).double()
    x_TD, all_read = make.normal(n.tokens, n.width), Full()
    moved = (3 * ours.keys_BGD.numel() + 2 * x_TD.numel()) * x_TD.element_size()
    forms = both(lambda: ours(x_TD, all_read))
    flops = 6.0 * n.tokens * ours.keys_BGD.numel()
    with torch.no_grad():
        yield Case("gated outputs", forms, lambda: exact(x_TD.double(), all_read), moved, flops)


def activations(make: Maker, n: Sizes) -> Iterator[Case]:
    gate, up = (make.normal(n.tokens * n.k, n.hidden) for _ in range(2))
    forms = {
        "triton": lambda: gated.gated_activation(gate, up, "silu"),
        "torch": lambda: F.silu(gate) * up,
    }
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers.functional import liger_swiglu

        forms["Liger"] = lambda: liger_swiglu(gate, up)
    moved = 3 * gate.numel() * gate.element_size()
    yield Case("gated activation", forms, lambda: F.silu(gate.double()) * up.double(), moved)


def norms(make: Maker, n: Sizes) -> Iterator[Case]:
    x_TD, w_D = make.normal(n.tokens, n.width), make.normal(n.width)
    shape = (n.width,)
    forms = {
        "triton": lambda: rms_norm.rms_norm(x_TD, w_D, 1e-6),
        "torch": lambda: F.rms_norm(x_TD, shape, w_D, 1e-6),
    }
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers.functional import liger_rms_norm

        forms["Liger"] = lambda: liger_rms_norm(x_TD, w_D, 1e-6)
    moved = 2 * x_TD.numel() * x_TD.element_size()
    yield Case(
        "RMSNorm", forms, lambda: F.rms_norm(x_TD.double(), shape, w_D.double(), 1e-6), moved
    )
    added_TD = make.normal(n.tokens, n.width)
    yield Case(
        "residual norm",
        {
            "triton": lambda: residual_norm.residual_norm(
                x_TD, added_TD, w_D, 1e-6, False, x_TD.dtype
            )[2],
            "torch": lambda: F.rms_norm(x_TD + added_TD, shape, w_D, 1e-6),
        },
        lambda: F.rms_norm(x_TD.double() + added_TD.double(), shape, w_D.double(), 1e-6),
        2 * moved,
    )


def losses(make: Maker, n: Sizes) -> Iterator[Case]:
    """Value and gradient in x, since ours makes both at once."""
    n_tokens = n.tokens // 4  # so that the forms which keep all logits fit
    x_TD = make.normal(n_tokens, n.width).requires_grad_()
    w_VD = make.normal(n.vocabulary, n.width, scale=n.width**-0.5).requires_grad_()
    target_T = make.below(n.vocabulary, n_tokens)

    def gradient(loss: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return torch.autograd.grad(loss, (x, w))[0]

    forms = {
        "triton": lambda: gradient(
            cross_entropy.linear_cross_entropy(x_TD, w_VD, target_T), x_TD, w_VD
        ),
        "torch": lambda: gradient(F.cross_entropy(x_TD @ w_VD.t(), target_T), x_TD, w_VD),
    }
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        forms["Liger"] = lambda: gradient(
            liger_fused_linear_cross_entropy(x_TD, w_VD, target_T), x_TD, w_VD
        )

    def exact() -> Tensor:
        x, w = x_TD.detach().double().requires_grad_(), w_VD.detach().double().requires_grad_()
        return gradient(F.cross_entropy(x @ w.t(), target_T), x, w)

    moved = 8.0 * n_tokens * n.vocabulary * x_TD.element_size()
    flops = 6.0 * n_tokens * n.vocabulary * n.width
    yield Case("linear + cross-entropy", forms, exact, moved, flops)
