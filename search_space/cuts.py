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


CUTS: dict[str, Callable[[Backbone], FFNSpec]] = {
    # The model as it is, trained on: what a cut loses is seen beside it.
    "original": reference,
    # DSMoE (2502.12455): 8 experts, tau 0.5, lambda 1.
    "dsmoe": lambda b: cut_into(b, EXPERTS, StraightThrough()),
    # LLaMA-MoE (2406.16554): experts of contiguous units, weights of top-k that sum to 1.
    "llama_moe": lambda b: cut_into(
        b, EXPERTS, TopK(k=EXPERTS // 2, normalize=True, balance_weight=0.01)
    ),
    # Avg-K (2305.13999), whose means come from the pretrained gates.
    "avgk": lambda b: cut_into(b, EXPERTS, AvgK(k=EXPERTS // 2)),
    # ReMoE's routing (2412.14711).
    "remoe": lambda b: cut_into(b, EXPERTS, ReLURouting(target_activity=0.5)),
    "pruned_magnitude": lambda b: pruned(b, _half(b), "magnitude"),
    "pruned_activation": lambda b: pruned(b, _half(b), "activation"),
}
