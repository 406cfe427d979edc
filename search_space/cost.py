"""What a design costs, in closed form, a token: an FFN, and the whole proxy around it.

`search_space.prices` says what is counted and what is not.
"""

from __future__ import annotations

import functools

from search_space.backbone import Backbone
from search_space.base import Base
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
        cost += _other(backbone).times(backbone.n_layers - n_placed)
    return cost


@functools.cache
def _other(backbone: Backbone) -> Cost:
    """A layer that does not have the design."""
    return _around(backbone)[0] + ffn_cost(reference(backbone), backbone.d_model)


@functools.cache  # a study prices thousands of designs on one backbone
def _around(backbone: Backbone) -> tuple[Cost, Cost]:
    """A layer's attention, and the head."""
    d, length = backbone.d_model, backbone.seq_len
    if backbone.foreign is not None:
        return _around_base(backbone, backbone.foreign)
    # Kept: the norm's 2, queries, keys and values, both turned, the heads' output.
    attention = matrix(d, d).times(4) + parameters(d + 2 * backbone.head_dim) + saved(8 * d)
    # Scores and values over the causal half of the sequence; backward is twice the forward.
    core = 2.0 * d * length
    attention += Cost(forward_flops=core, active_flops=core, training_flops=3 * core)
    # The logits are not kept: the loss makes its gradient in the hidden states at once.
    return attention, norm(d) + matrix(d, backbone.vocab_size) + saved(d)


def _around_base(backbone: Backbone, base: Base) -> tuple[Cost, Cost]:
    """The same of a pretrained model: grouped keys and values, what its family adds, its head."""
    d, vocab = backbone.d_model, backbone.vocab_size
    queries, pairs = backbone.n_heads * base.head_dim, base.n_kv_heads * base.head_dim
    attention = matrix(d, queries).times(2) + matrix(d, pairs).times(2)
    extra = {"qwen2": queries + 2 * pairs, "qwen3": 2 * base.head_dim}.get(base.family, 0)
    attention += parameters(d + extra) + saved(4 * d + 2 * (queries + pairs))
    core = 2.0 * queries * backbone.seq_len
    attention += Cost(forward_flops=core, active_flops=core, training_flops=3 * core)
    table = 0 if base.tied else d * vocab
    return attention, norm(d) + matrix(d, vocab) + parameters(table) + saved(d)


def step_flops(spec: FFNSpec, backbone: Backbone, batch_size: int) -> float:
    """Training FLOPs of a step of `batch_size` sequences, without the optimizer's own."""
    return model_cost(spec, backbone).training_flops * batch_size * backbone.seq_len
