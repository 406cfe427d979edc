"""What a design costs, in closed form, a token: an FFN, and the whole proxy around it.

`search_space.prices` says what is counted and what is not.
"""

from __future__ import annotations

import functools

from search_space.backbone import Backbone
from search_space.experts import pre_activations
from search_space.placement import placed, reference
from search_space.prices import Cost, matrix, norm, parameters, saved
from search_space.spec import FFNSpec


def ffn_cost(spec: FFNSpec, d_model: int, activity: float | None = None) -> Cost:
    """One layer's FFN: every sub-layer, with its norm, selection, experts and shared FFN.

    activity: measured share of active experts, for designs whose activity depends on the data;
    None prices them at what is expected.
    """
    layer = spec.selection.cost(spec, d_model, activity) + norm(d_model)
    if spec.shared_width:
        width = spec.shared_width // spec.depth
        layer += matrix(d_model, width).times(3 if spec.gated else 2)
        layer += saved(width * pre_activations(spec))
    return layer.times(spec.depth)


def model_cost(spec: FFNSpec, backbone: Backbone, activity: float | None = None) -> Cost:
    """The whole proxy: attention, FFNs, norms, tied embedding and head.

    activity: as `ffn_cost` has it, over the layers that have the design.
    Raises SpecError for a placement that the backbone has too few layers for.
    """
    attention, head = _around(backbone)
    n_placed = sum(placed(spec.placement, backbone.n_layers))
    cost = (attention + ffn_cost(spec, backbone.d_model, activity)).times(n_placed) + head
    if n_placed < backbone.n_layers:
        others = attention + ffn_cost(reference(backbone), backbone.d_model)
        cost += others.times(backbone.n_layers - n_placed)
    return cost


@functools.cache  # a study prices thousands of designs on one backbone
def _around(backbone: Backbone) -> tuple[Cost, Cost]:
    """A layer's attention, and the head."""
    d, length = backbone.d_model, backbone.seq_len
    # Kept: the norm's 2, queries, keys and values, both turned, the heads' output.
    attention = matrix(d, d).times(4) + parameters(d + 2 * backbone.head_dim) + saved(8 * d)
    # Scores and values over the causal half of the sequence; backward is twice the forward.
    core = 2.0 * d * length
    attention += Cost(forward_flops=core, active_flops=core, training_flops=3 * core)
    # The logits are not kept: the loss makes its gradient in the hidden states at once.
    return attention, norm(d) + matrix(d, backbone.vocab_size) + saved(d)


def step_flops(spec: FFNSpec, backbone: Backbone, batch_size: int) -> float:
    """Training FLOPs of a step of `batch_size` sequences, without the optimizer's own."""
    return model_cost(spec, backbone).training_flops * batch_size * backbone.seq_len
