"""What a design costs, in closed form, a token.

The currency (docs/architecture.md): a multiply-add is 2 FLOPs. Counted are matrix products,
attention (the causal half), routers and key search, and row gathers (2 an element used).
Element-wise work (norms, activations, means, sorting, the embedding look-up) is not.

Three counts differ where a method computes more in training than in use:
forward_flops: the forward pass while training.  training_flops: forward and backward while
training, as the layers really do them.  active_flops: the forward pass in inference.

D model width, B experts of G hidden units, k of them read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from search_space.backbone import Backbone
from search_space.spec import (
    AvgK,
    Direct,
    FFNSpec,
    Hash,
    ProductKey,
    ReLURouting,
    StraightThrough,
    TopK,
)

EXPECTED_ACTIVITY = 0.5  # of straight-through gates before any were measured: sigmoids start at 1/2
FLOAT = 4  # bytes of a float32
INDEX = 2  # floats that an int64 takes the room of
ORDER = 3  # of a pair in row order: its row, token and place, each an int32
# Narrower experts are read row by row (workers.layers.experts says the same).
MATRIX_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Cost:
    """FLOPs a token, parameters and bytes (float32) of one FFN or one model.

    active_params: parameters that one token's inference reads, at most (heads of a product-key
        layer may pick the same row).
    param_bytes: of all parameters.
    activation_bytes: what the forward pass keeps for backward, a token: an estimate that leaves
        out what is small beside it (within 15% of the measured).
    decode_bytes: what one decoding step of one sequence reads: the active parameters, and
        Avg-K's block keys. The attention cache is not counted.
    """

    forward_flops: float = 0.0
    active_flops: float = 0.0
    training_flops: float = 0.0
    total_params: int = 0
    active_params: float = 0.0
    param_bytes: int = 0
    activation_bytes: float = 0.0
    decode_bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{k: v + getattr(other, k) for k, v in vars(self).items()})

    def times(self, n: int) -> Cost:
        """n of these."""
        return Cost(**{k: v * n for k, v in vars(self).items()})

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def parameters(n: int, *, used: float = 1.0) -> Cost:
    """n parameters without products, such as a norm's; a token reads the share `used`."""
    active = n * min(1.0, used)
    return Cost(
        total_params=n, active_params=active, param_bytes=FLOAT * n, decode_bytes=FLOAT * active
    )


def matrix(inner: int, outer: int, *, used: float = 1.0, trained: float | None = None) -> Cost:
    """A product with an (inner, outer) weight of which a token uses the share `used` in inference
    and `trained` (default: the same) while training; backward costs twice the forward."""
    trained = used if trained is None else trained
    forward = 2.0 * inner * outer
    return parameters(inner * outer, used=used) + Cost(
        forward_flops=forward * trained,
        active_flops=forward * used,
        training_flops=3 * forward * trained,
    )


def search(inner: int, outer: int) -> Cost:
    """Scores against (inner, outer) numbers that are no parameters of their own, no backward."""
    flops = 2.0 * inner * outer
    return Cost(forward_flops=flops, active_flops=flops, training_flops=flops)


def saved(floats: float) -> Cost:
    """float32 numbers kept for backward, a token."""
    return Cost(activation_bytes=FLOAT * floats)


def norm(d_model: int) -> Cost:
    """An RMSNorm; its input, one number of it and its output are kept."""
    return parameters(d_model) + saved(2 * d_model + 1)


def blocks(spec: FFNSpec, d_model: int, *, used: float, trained: float | None = None) -> Cost:
    """The experts of one sub-layer when a token reads the share `used` of them."""
    width = spec.n_experts * spec.expert_width
    n_matrices = 3 if spec.gated else 2
    cost = matrix(d_model, width, used=used, trained=trained).times(n_matrices)
    if spec.output_gate:
        cost += matrix(d_model, spec.n_experts, used=used, trained=trained)
    return cost


def hidden_floats(spec: FFNSpec, *, weighted: bool) -> int:
    """Numbers that plain operations keep for one hidden unit: before and after the activation
    (ReLU's backward needs the output alone), the gate's product, and the weighted one."""
    return (1 if spec.activation == "relu" else 2) + 2 * spec.gated + weighted


def pre_activations(spec: FFNSpec) -> int:
    """Numbers that the fused operation keeps for one hidden unit; it makes the rest anew."""
    return 1 + spec.gated


def saved_full(spec: FFNSpec, d_model: int, *, weighted: bool) -> Cost:
    """Kept by experts that every token reads in full."""
    n_experts, width = spec.n_experts, spec.expert_width
    if spec.output_gate:
        hidden = width * hidden_floats(spec, weighted=False)
        return saved(n_experts * (hidden + d_model + 2 * weighted))
    return saved(n_experts * (width * pre_activations(spec) + weighted))


def saved_reads(spec: FFNSpec, d_model: int, reads: float, *, weighted: bool) -> Cost:
    """Kept by experts of which a token reads `reads`: as rows when narrow, fused when wide; with an
    output gate, a copy of the token, the expert's output and both sides of the gate for each."""
    width = spec.expert_width
    if spec.output_gate:
        hidden = width * hidden_floats(spec, weighted=False)
        return saved(reads * (hidden + 3 * d_model + INDEX + 2 * weighted))
    if width < MATRIX_ROWS:
        hidden = width * hidden_floats(spec, weighted=weighted)
        return saved(reads * (hidden + ORDER * width + 2 * weighted))
    return saved(reads * (width * pre_activations(spec) + INDEX + 2 * weighted))


def _dense(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    return blocks(spec, d_model, used=1.0) + saved_full(spec, d_model, weighted=False)


def _topk(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    assert isinstance(spec.selection, TopK)
    k, n = spec.selection.k, spec.n_experts
    router = matrix(d_model, n) + saved(n + INDEX * k)
    cost = router + blocks(spec, d_model, used=k / n)
    return cost + saved_reads(spec, d_model, k, weighted=True)


def _hash(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    assert isinstance(spec.selection, Hash)
    k = spec.selection.k
    cost = blocks(spec, d_model, used=k / spec.n_experts)
    return cost + saved_reads(spec, d_model, k, weighted=False)


def _avgk(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    assert isinstance(spec.selection, AvgK)
    k, n = spec.selection.k, spec.n_experts
    # An engine takes the block keys once; a step then reads them beside the chosen blocks.
    keys = search(d_model, n) + Cost(decode_bytes=FLOAT * d_model * n)
    cost = keys + blocks(spec, d_model, used=k / n)
    return cost + saved_reads(spec, d_model, k, weighted=False)


def _direct(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    assert isinstance(spec.selection, Direct)
    k, n = spec.selection.k, spec.n_experts
    # All rows of one matrix are scored; its backward, and the other matrices, touch k rows.
    scored = search(d_model, n) + parameters(d_model * n)
    scored += Cost(training_flops=2 * 2.0 * d_model * k)
    cost = scored + matrix(d_model, n, used=k / n).times(2 if spec.gated else 1)
    return cost + saved_reads(spec, d_model, k, weighted=False)


def _product_key(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    knobs = spec.selection
    assert isinstance(knobs, ProductKey)
    n = spec.n_experts
    root = math.isqrt(n)
    reads, queries = knobs.heads * knobs.k, knobs.heads * knobs.key_dim
    # All sub-keys of both halves are scored; backward, the chosen ones get a gradient alone. (On a
    # GPU the others' zeros are multiplied too: that is how it is done there, not what must be.)
    keys = search(knobs.key_dim, knobs.heads * root) + parameters(queries * root)
    keys += Cost(training_flops=2 * 2.0 * reads * knobs.key_dim)
    # Kept are the queries before and after their norm, the choices and their weights.
    cost = matrix(d_model, queries) + keys
    cost += saved(queries * (1 + (knobs.query_norm != "none")) + reads * (INDEX + 1))
    if knobs.values == "pkm":
        return cost + matrix(d_model, n, used=reads / n) + saved(reads * ORDER)
    cost += blocks(spec, d_model, used=reads / n)
    return cost + saved_reads(spec, d_model, reads, weighted=True)


def _straight_through(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    assert isinstance(spec.selection, StraightThrough)
    used = EXPECTED_ACTIVITY if activity is None else activity
    used = max(used, 1 / spec.n_experts)
    cost = matrix(d_model, spec.n_experts) + blocks(spec, d_model, used=used, trained=1.0)
    return cost + saved(spec.n_experts) + saved_full(spec, d_model, weighted=True)


def _relu_routing(spec: FFNSpec, d_model: int, activity: float | None) -> Cost:
    assert isinstance(spec.selection, ReLURouting)
    used = spec.selection.target_activity if activity is None else activity
    cost = matrix(d_model, spec.n_experts) + blocks(spec, d_model, used=used)
    reads = used * spec.n_experts
    cost += saved(spec.n_experts + INDEX * reads)
    return cost + saved_reads(spec, d_model, reads, weighted=True)


FORMULAS: dict[str, Callable[[FFNSpec, int, float | None], Cost]] = {
    "dense": _dense,
    "topk": _topk,
    "hash": _hash,
    "avgk": _avgk,
    "direct": _direct,
    "product_key": _product_key,
    "straight_through": _straight_through,
    "relu_routing": _relu_routing,
}


def ffn_cost(spec: FFNSpec, d_model: int, activity: float | None = None) -> Cost:
    """One layer's FFN: every sub-layer, with its norm, selection, experts and shared FFN.

    activity: measured share of active blocks, for designs whose activity depends on the data
    (straight-through, ReLU routing); None prices them at what is expected.
    """
    layer = FORMULAS[spec.method](spec, d_model, activity) + norm(d_model)
    if spec.shared_width:
        width = spec.shared_width // spec.depth
        layer += matrix(d_model, width).times(3 if spec.gated else 2)
        layer += saved(width * pre_activations(spec))
    return layer.times(spec.depth)


def model_cost(spec: FFNSpec, backbone: Backbone, activity: float | None = None) -> Cost:
    """The whole proxy: attention, FFNs, norms, tied embedding and head."""
    d, length = backbone.d_model, backbone.seq_len
    # Kept: the norm's 2, queries, keys and values, both turned, the heads' output.
    attention = matrix(d, d).times(4) + parameters(d + 2 * backbone.head_dim) + saved(8 * d)
    # Scores and values over the causal half of the sequence; backward is twice the forward.
    core = 2.0 * d * length
    attention += Cost(forward_flops=core, active_flops=core, training_flops=3 * core)
    layer = attention + ffn_cost(spec, d, activity)
    # The logits are not kept: the loss makes its gradient in the hidden states at once.
    head = norm(d) + matrix(d, backbone.vocab_size) + saved(d)
    return layer.times(backbone.n_layers) + head


def step_flops(spec: FFNSpec, backbone: Backbone, batch_size: int) -> float:
    """Training FLOPs of a step of `batch_size` sequences, without the optimizer's own."""
    return model_cost(spec, backbone).training_flops * batch_size * backbone.seq_len
