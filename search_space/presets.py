"""The published FFN designs as named specs, scaled to a backbone.

Each preset is a function `(backbone) -> FFNSpec`. R is `backbone.reference_d_ff`, the hidden
width of the dense FFN it stands beside. A token uses R hidden units unless the docstring says
otherwise (n experts of R / n, rounded down where n does not divide R). Gated presets keep the
width, so they have three matrices of it instead of two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from search_space.backbone import Backbone
from search_space.methods.avgk import AvgK
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.placement import reference
from search_space.spec import FFNSpec

Preset = Callable[[Backbone], FFNSpec]

PRESETS: dict[str, Preset] = {}


def _preset(name: str) -> Callable[[Preset], Preset]:
    def register(function: Preset) -> Preset:
        PRESETS[name] = function
        return function

    return register


def _part(backbone: Backbone, n: int) -> int:
    """One n-th of the reference width."""
    return max(1, backbone.reference_d_ff // n)


@_preset("dense")
def dense(backbone: Backbone) -> FFNSpec:
    """The Transformer's FFN (Vaswani et al. 2017, 1706.03762), with GELU (1606.08415)."""
    return reference(backbone)


@_preset("switch")
def switch(backbone: Backbone) -> FFNSpec:
    """Switch Transformer (Fedus et al. 2021, 2101.03961): one expert a token, ReLU, alpha 0.01.

    Ours: 8 experts of the reference width, and no capacity (no token is dropped).
    """
    width = backbone.reference_d_ff
    selection = TopK(k=1, balance_weight=0.01)
    return FFNSpec(d_ff=8 * width, expert_width=width, activation="relu", selection=selection)


@_preset("switch_alternate")
def switch_alternate(backbone: Backbone) -> FFNSpec:
    """Switch Transformer (Fedus et al. 2021, 2101.03961) in every other layer, as it has them."""
    return dataclasses.replace(switch(backbone), placement="alternate")


@_preset("mixtral")
def mixtral(backbone: Backbone) -> FFNSpec:
    """Mixtral (Jiang et al. 2024, 2401.04088): 2 of 8 SwiGLU experts, weights that sum to 1.

    Ours: experts of R / 2, so that two make the reference width; alpha 0.01 as in Switch.
    """
    width = _part(backbone, 2)
    selection = TopK(k=2, normalize=True, balance_weight=0.01)
    return FFNSpec(
        d_ff=8 * width, expert_width=width, activation="silu", gated=True, selection=selection
    )


@_preset("olmoe")
def olmoe(backbone: Backbone) -> FFNSpec:
    """OLMoE (Muennighoff et al. 2024, 2409.02060): 8 of 64 SwiGLU experts, alpha 0.01, beta 0.001.

    Ours: experts of R / 8.
    """
    width = _part(backbone, 8)
    selection = TopK(k=8, balance_weight=0.01, z_weight=0.001)
    return FFNSpec(
        d_ff=64 * width, expert_width=width, activation="silu", gated=True, selection=selection
    )


@_preset("deepseek_moe")
def deepseek_moe(backbone: Backbone) -> FFNSpec:
    """DeepSeekMoE (Dai et al. 2024, 2401.06066): 6 of 64 fine SwiGLU experts beside 2 shared ones.

    The shape of its 16B model. Ours: experts of R / 8; alpha 0.01 as in Switch.
    """
    width = _part(backbone, 8)
    return FFNSpec(
        d_ff=64 * width,
        expert_width=width,
        activation="silu",
        gated=True,
        selection=TopK(k=6, balance_weight=0.01),
        shared_width=2 * width,
    )


@_preset("sigma_moe")
def sigma_moe(backbone: Backbone) -> FFNSpec:
    """sigma-MoE (Csordas et al. 2023, 2310.10837): 4 of 16 ReLU experts, sigmoid gate, gamma 1e-3.

    Ours: experts of R / 4.
    """
    width = _part(backbone, 4)
    selection = TopK(k=4, gate="sigmoid", entropy_weight=1e-3)
    return FFNSpec(d_ff=16 * width, expert_width=width, activation="relu", selection=selection)


@_preset("hash")
def hash_layer(backbone: Backbone) -> FFNSpec:
    """Hash layer (Roller et al. 2021, 2106.04426): a fixed balanced table picks one ReLU expert.

    Ours: 8 experts of the reference width.
    """
    width = backbone.reference_d_ff
    return FFNSpec(d_ff=8 * width, expert_width=width, activation="relu", selection=Hash(k=1))


@_preset("avgk")
def avgk(backbone: Backbone) -> FFNSpec:
    """Avg-K (Liu et al. 2023, 2305.13999): experts picked by their mean key, ReLU, no router.

    Ours: 8 of 64 experts of R / 8.
    """
    width = _part(backbone, 8)
    return FFNSpec(d_ff=64 * width, expert_width=width, activation="relu", selection=AvgK(k=8))


@_preset("vanilla_m")
def vanilla_m(backbone: Backbone) -> FFNSpec:
    """VanillaM (Liu et al. 2023, 2305.13999): every hidden unit is scored, the best R are kept.

    Ours: 8 R units in all. Scoring reads all their keys, so its FLOPs are above the reference.
    """
    width = backbone.reference_d_ff
    return FFNSpec(d_ff=8 * width, expert_width=1, activation="relu", selection=Direct(k=width))


def _key_dim(backbone: Backbone) -> int:
    """About half of d_model (PKM: 512 of 1024), even because its halves are used apart."""
    return max(2, backbone.d_model // 4 * 2)


@_preset("pkm")
def pkm(backbone: Backbone) -> FFNSpec:
    """Product-key memory (Lample et al. 2019, 1907.05242): 4 heads of 32 value rows, BatchNorm.

    The paper's 512^2 rows at d_model 1024, scaled to (d_model / 2)^2 and at least 32^2 (ours).
    A token uses 128 rows, whatever R is.
    """
    root = max(32, backbone.d_model // 2)
    selection = ProductKey(heads=4, k=32, key_dim=_key_dim(backbone), values="pkm")
    return FFNSpec(d_ff=root * root, expert_width=1, selection=selection)


@_preset("pkm_middle")
def pkm_middle(backbone: Backbone) -> FFNSpec:
    """Product-key memory (Lample et al. 2019, 1907.05242) in the middle layer alone.

    The paper replaces the FFN of one intermediate layer, or of a few of them.
    """
    return dataclasses.replace(pkm(backbone), placement="middle")


@_preset("peer")
def peer(backbone: Backbone) -> FFNSpec:
    """PEER (He 2024, 2407.04153): 8 heads of 16 single-neuron experts, softmax, BatchNorm, GELU.

    The paper has 1024^2 experts in the middle layer alone; ours: (d_model / 2)^2, at least 16^2,
    in every layer. A token uses 128 hidden units, whatever R is.
    """
    root = max(16, backbone.d_model // 2)
    selection = ProductKey(heads=8, k=16, key_dim=_key_dim(backbone), values="peer")
    return FFNSpec(d_ff=root * root, expert_width=1, selection=selection)


@_preset("peer_middle")
def peer_middle(backbone: Backbone) -> FFNSpec:
    """PEER (He 2024, 2407.04153) in the middle layer alone, as the paper has it."""
    return dataclasses.replace(peer(backbone), placement="middle")


@_preset("dsmoe")
def dsmoe(backbone: Backbone) -> FFNSpec:
    """DSMoE (Lv et al. 2025, 2502.12455): a SwiGLU FFN cut into 8 experts, tau 0.5, lambda 1.

    R hidden units in all; how many a token uses is learned. The paper cuts a pretrained FFN;
    trained from scratch, a smaller lambda keeps more experts open.
    """
    width = _part(backbone, 8)
    return FFNSpec(
        d_ff=8 * width,
        expert_width=width,
        activation="silu",
        gated=True,
        selection=StraightThrough(tau=0.5, sparsity_weight=1.0),
    )


@_preset("remoe")
def remoe(backbone: Backbone) -> FFNSpec:
    """ReMoE (Wang et al. 2024, 2412.14711): ReLU routing over 8 SwiGLU experts, one active.

    One active expert on average: the penalty's factor is 1.2. Ours: experts of the reference
    width.
    """
    width = backbone.reference_d_ff
    return FFNSpec(
        d_ff=8 * width,
        expert_width=width,
        activation="silu",
        gated=True,
        selection=ReLURouting(target_activity=1 / 8),
    )


@_preset("finedeep")
def finedeep(backbone: Backbone) -> FFNSpec:
    """Finedeep (Pan et al. 2025, 2502.12928): 2 sub-layers of 4 experts, all active, output gates.

    Ours: 4 SwiGLU experts a sub-layer, of R / 8.
    """
    width = _part(backbone, 8)
    return FFNSpec(
        d_ff=8 * width,
        expert_width=width,
        depth=2,
        activation="silu",
        gated=True,
        output_gate=True,
    )
