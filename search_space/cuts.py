"""The published ways to make a dense pretrained model sparse, as designs cut from its FFN.

Each is a function `(backbone) -> FFNSpec` of 8 experts, about half of which a token uses; the
prunings keep half of the units. `cut_into` and `pruned` make others.
"""

from __future__ import annotations

from collections.abc import Callable

from search_space.backbone import Backbone
from search_space.design import Cut, Method
from search_space.errors import SpecError
from search_space.methods.avgk import AvgK
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.placement import reference
from search_space.spec import FFNSpec

EXPERTS = 8


def cut_into(
    backbone: Backbone, n_experts: int, selection: Method, cut: Cut = "contiguous"
) -> FFNSpec:
    """All units of the pretrained FFN, as experts of one width. Raises SpecError where that number
    does not divide them."""
    whole, base = reference(backbone), backbone.base
    if base is None or whole.d_ff % n_experts:
        raise SpecError(
            f"{n_experts} experts do not divide the {whole.d_ff} hidden units; choose a divisor"
        )
    return FFNSpec(
        d_ff=whole.d_ff,
        expert_width=whole.d_ff // n_experts,
        gated=base.gated,
        activation=base.activation,
        selection=selection,
        cut=cut,
    )


def pruned(backbone: Backbone, units: int, cut: Cut) -> FFNSpec:
    """A dense FFN of the first units in the cut's order: structured pruning."""
    whole = reference(backbone)
    return FFNSpec(d_ff=units, gated=whole.gated, activation=whole.activation, cut=cut)


def _half(backbone: Backbone) -> int:
    return max(1, backbone.reference_d_ff // 2)


def original(backbone: Backbone) -> FFNSpec:
    """The model as it is, trained on: what a cut loses is seen beside it."""
    return reference(backbone)


def dsmoe(backbone: Backbone) -> FFNSpec:
    """DSMoE (Lv et al. 2025, 2502.12455): 8 experts, tau 0.5, lambda 1."""
    return cut_into(backbone, EXPERTS, StraightThrough())


def llama_moe(backbone: Backbone) -> FFNSpec:
    """LLaMA-MoE (Zhu et al. 2024, 2406.16554): 4 of 8 contiguous experts, weights that sum to 1."""
    selection = TopK(k=EXPERTS // 2, normalize=True, balance_weight=0.01)
    return cut_into(backbone, EXPERTS, selection)


def avgk(backbone: Backbone) -> FFNSpec:
    """Avg-K (Liu et al. 2023, 2305.13999): 4 of 8 experts, means of the pretrained gates."""
    return cut_into(backbone, EXPERTS, AvgK(k=EXPERTS // 2))


def remoe(backbone: Backbone) -> FFNSpec:
    """ReMoE's routing (Wang et al. 2024, 2412.14711) over 8 experts, half of them active."""
    return cut_into(backbone, EXPERTS, ReLURouting(target_activity=0.5))


def pruned_magnitude(backbone: Backbone) -> FFNSpec:
    """Structured pruning: the half of the units with the largest weights."""
    return pruned(backbone, _half(backbone), "magnitude")


def pruned_activation(backbone: Backbone) -> FFNSpec:
    """Structured pruning: the half of the units that a calibration text activates most."""
    return pruned(backbone, _half(backbone), "activation")


_ALL = (original, dsmoe, llama_moe, avgk, remoe, pruned_magnitude, pruned_activation)
CUTS: dict[str, Callable[[Backbone], FFNSpec]] = {each.__name__: each for each in _ALL}
