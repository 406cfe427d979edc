"""Closed-form costs against what the built modules do."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from search_space.backbone import Backbone
from search_space.cost import ffn_cost, model_cost, step_flops
from search_space.design import Method, Placement
from search_space.errors import InputError
from search_space.methods import names
from search_space.methods.avgk import AvgK
from search_space.methods.dense import Dense
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.prices import Cost
from search_space.spec import FFNSpec
from workers.kernels.api.cross_entropy import linear_cross_entropy
from workers.kernels.api.flops import custom_flops
from workers.kernels.settings import Backend, override
from workers.layers.ffn import FFN
from workers.layers.recording import record_stats
from workers.model import ProxyLM

pytestmark = pytest.mark.slow

TOKENS, VOCAB = 3, 32
RANDOM_SPECS = int(os.environ.get("NAS_TEST_EXAMPLES", "200"))


def random_selection(rng: random.Random, method: str, n_experts: int) -> Method:
    k = rng.randint(1, n_experts)
    weight = rng.choice([0.0, 0.01])
    makers = {
        "dense": Dense,
        "topk": lambda: TopK(
            k=k,
            gate=rng.choice(["softmax", "sigmoid"]),
            normalize=k > 1 and rng.random() < 0.5,
            balance_weight=weight,
            z_weight=rng.choice([0.0, 0.001]),
            entropy_weight=rng.choice([0.0, 0.001]),
            bias_rate=rng.choice([0.0, 0.001]),
        ),
        "hash": lambda: Hash(k=k, balanced=rng.random() < 0.5, seed=rng.randint(0, 9)),
        "avgk": lambda: AvgK(k=k),
        "direct": lambda: Direct(k=k),
        "product_key": lambda: ProductKey(
            heads=rng.randint(1, 3),
            k=k,
            key_dim=2 * rng.randint(1, 5),
            gate=rng.choice(["softmax", "sigmoid"]),
            query_norm=rng.choice(["batch", "layer", "none"]),
            values=rng.choice(["peer", "pkm"]),
        ),
        "straight_through": lambda: StraightThrough(
            tau=rng.choice([0.0, 0.5, 0.9]),
            sparsity_weight=weight,
            renormalize=rng.random() < 0.5,
        ),
        "relu_routing": lambda: ReLURouting(
            target_activity=rng.uniform(0.1, 1.0), l1_start=rng.choice([1e-8, 1e-2]), l1_factor=1.1
        ),
    }
    return makers[method]()


def random_spec(rng: random.Random) -> FFNSpec:
    """A legal design, every field of it drawn; combinations that are refused are drawn again."""
    method = rng.choice(sorted(names()))
    while True:
        depth, width = rng.choice([1, 1, 2]), rng.choice([1, 2, 3, 7, 8, 11, 16])
        n_experts = rng.choice([1, 4, 9]) if method == "product_key" else rng.randint(1, 5)
        try:
            return FFNSpec(
                d_ff=depth * width * n_experts,
                expert_width=width,
                depth=depth,
                activation=rng.choice(["gelu", "relu", "silu"]),
                gated=rng.random() < 0.5,
                selection=random_selection(rng, method, n_experts),
                shared_width=rng.choice([0, 5 * depth]),
                output_gate=rng.random() < 0.3,
                lr_multiplier=rng.choice([0.5, 1.0]),
            )
        except InputError:
            continue


def random_specs() -> list[FFNSpec]:
    rng = random.Random(20)
    return [random_spec(rng) for _ in range(RANDOM_SPECS)]


def build(spec: FFNSpec, d_model: int) -> FFN:
    torch.manual_seed(1)
    model = FFN(spec, d_model, VOCAB)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=custom_flops())


def assert_counts(spec: FFNSpec, d_model: int) -> None:
    """Every FLOP count and the parameters of one FFN, exactly."""
    model = build(spec, d_model)
    x_TD = torch.randn(TOKENS, d_model, requires_grad=True)
    ids_T = torch.randint(VOCAB, (TOKENS,))
    with record_stats(model) as recorded, counter() as forward:
        y_TD, loss = model(x_TD, ids_T)
    with counter() as backward:
        (y_TD.square().sum() + (0 if loss is None else loss)).backward()
    priced = ffn_cost(spec, d_model, activity(recorded))
    flops = forward.get_total_flops()
    assert flops == whole(priced.forward_flops)
    assert flops + backward.get_total_flops() == whole(priced.training_flops)
    with torch.no_grad(), record_stats(model.eval()) as recorded, counter() as inference:
        model(x_TD, ids_T)
    priced = ffn_cost(spec, d_model, activity(recorded))
    assert inference.get_total_flops() == whole(priced.active_flops)
    n_parameters = sum(p.numel() for p in model.parameters())
    assert (priced.total_params, priced.param_bytes) == (n_parameters, 4 * n_parameters)
    assert priced.active_params <= priced.total_params


def activity(recorded) -> float:
    """What the formulas want of designs whose activity depends on the data."""
    shares = [stats.summary()["active"] for stats in recorded.values()]
    return sum(shares) / len(shares)


def whole(per_token: float) -> int:
    """FLOPs of all tokens; they are whole, so only the rounding of a measured share is lost."""
    total = per_token * TOKENS
    assert abs(total - round(total)) < 1e-6 * max(1.0, total)
    return round(total)


@pytest.mark.parametrize("d_model", [64, 128])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_cost_what_they_do(preset: str, d_model: int):
    assert_counts(PRESETS[preset](Backbone(d_model=d_model)), d_model)


def test_random_designs_cost_what_they_do():
    for spec in random_specs():
        try:
            assert_counts(spec, 12)
        except AssertionError as error:
            raise AssertionError(f"{spec}: {error}") from error


def test_random_designs_cover_every_method_and_field():
    dicts = [spec.to_dict() for spec in random_specs()]
    assert {d["selection"]["method"] for d in dicts} == set(names())
    for method in names():
        own = [d["selection"] for d in dicts if d["selection"]["method"] == method]
        for field in own[0].keys() - {"method"}:
            assert len({s[field] for s in own}) > 1 or field == "l1_factor", (method, field)
    for field in dicts[0].keys() - {"selection"}:
        assert len({d[field] for d in dicts}) > 1, field


def kept_bytes(model: torch.nn.Module, forward: Callable[[], object]) -> int:
    """Bytes of the distinct storages beside the parameters that `forward` keeps for backward."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()  # held while the storages are counted
    assert output is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("d_model", [64, 128])
@pytest.mark.parametrize("preset", PRESETS)
def test_activation_bytes_are_near_what_autograd_keeps(preset: str, d_model: int):
    spec, n_tokens = PRESETS[preset](Backbone(d_model=d_model)), 64
    model = build(spec, d_model)
    x_TD = torch.randn(n_tokens, d_model, requires_grad=True)
    ids_T = torch.randint(VOCAB, (n_tokens,))
    with record_stats(model) as recorded:
        model(x_TD, ids_T)
    priced = ffn_cost(spec, d_model, activity(recorded)).activation_bytes
    measured = kept_bytes(model, lambda: model(x_TD, ids_T)) / n_tokens
    assert priced == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    "spec",
    [
        FFNSpec(d_ff=240, expert_width=24, selection=TopK(k=3), output_gate=True),
        FFNSpec(d_ff=240, expert_width=24, selection=AvgK(k=3), gated=True, output_gate=True),
        FFNSpec(d_ff=64, expert_width=2, selection=TopK(k=8), gated=True, activation="relu"),
        FFNSpec(d_ff=240, expert_width=24, selection=StraightThrough(), output_gate=True),
        FFNSpec(d_ff=256, expert_width=16, selection=ProductKey(heads=2, k=2), depth=1),
    ],
    ids=lambda spec: spec.label,
)
def test_activation_bytes_of_unusual_designs(spec: FFNSpec):
    model, n_tokens = build(spec, 32), 64
    x_TD = torch.randn(n_tokens, 32, requires_grad=True)
    ids_T = torch.zeros(n_tokens, dtype=torch.long)
    measured = kept_bytes(model, lambda: model(x_TD, ids_T)) / n_tokens
    assert ffn_cost(spec, 32).activation_bytes == pytest.approx(measured, rel=0.15)


BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=48, seq_len=16)


def language_model_loss(model: ProxyLM, ids_NL: torch.Tensor) -> torch.Tensor:
    hidden_NLD = model(ids_NL).hidden_NLD
    return linear_cross_entropy(hidden_NLD.flatten(0, 1), model.embed.weight, ids_NL.flatten())


def test_model_activation_bytes():
    model = ProxyLM(FFNSpec(d_ff=128), BACKBONE)
    ids_NL = torch.randint(48, (4, 16))
    kept = kept_bytes(model, lambda: language_model_loss(model, ids_NL))
    # The head's gradient is made with the loss: as large as the head whatever the tokens.
    measured = (kept - 4 * model.embed.weight.numel()) / ids_NL.numel()
    priced = model_cost(FFNSpec(d_ff=128), BACKBONE).activation_bytes
    assert priced == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("placement", get_args(Placement))
@pytest.mark.parametrize("selection", [Dense(), AvgK(k=1)])
@pytest.mark.parametrize("n_layers", [2, 5])
@pytest.mark.parametrize("backend", [Backend.AUTO, Backend.TORCH])
def test_model_flops_and_parameters(selection, placement, n_layers, backend):
    spec = FFNSpec(d_ff=128, expert_width=32, selection=selection, placement=placement)
    backbone = dataclasses.replace(BACKBONE, n_layers=n_layers)
    model, ids_NL = ProxyLM(spec, backbone), torch.randint(48, (2, 16))
    # Without gradients: the loss makes those of the head in its forward pass.
    with override(backend), sdpa_kernel(SDPBackend.MATH):
        with counter() as forward, torch.no_grad():
            language_model_loss(model, ids_NL)
        with counter() as both:
            language_model_loss(model, ids_NL).backward()
    priced = model_cost(spec, backbone)
    # The causal half of attention is what must be done, and what the compiled form does; of torch's
    # the counter sees the whole square.
    half = n_layers * 2 * BACKBONE.d_model * BACKBONE.seq_len
    above_diagonal = half if backend is Backend.TORCH else 0
    tokens = ids_NL.numel()
    assert forward.get_total_flops() == tokens * (priced.forward_flops + above_diagonal)
    assert both.get_total_flops() == tokens * (priced.training_flops + 3 * above_diagonal)
    assert priced.total_params == sum(p.numel() for p in model.parameters())


def test_dense_by_hand():
    priced = ffn_cost(FFNSpec(d_ff=100), 10)
    assert priced.forward_flops == priced.active_flops == 2 * 2 * 10 * 100
    assert priced.training_flops == 3 * priced.forward_flops
    assert priced.total_params == priced.active_params == 2 * 10 * 100 + 10
    assert priced.decode_bytes == priced.param_bytes == 4 * 2010


def test_avgk_pays_for_its_scores_once_and_reads_its_block_keys():
    avgk = ffn_cost(FFNSpec(d_ff=100, expert_width=20, selection=AvgK(k=2)), 10)
    hashed = ffn_cost(FFNSpec(d_ff=100, expert_width=20, selection=Hash(k=2)), 10)
    scores = 2 * 10 * 5
    assert avgk.forward_flops - hashed.forward_flops == scores
    assert avgk.training_flops - hashed.training_flops == scores
    assert avgk.total_params == hashed.total_params
    assert avgk.decode_bytes - hashed.decode_bytes == 4 * 10 * 5


def test_direct_scores_all_rows_and_reads_k():
    priced = ffn_cost(FFNSpec(d_ff=100, expert_width=1, selection=Direct(k=5)), 10)
    assert priced.forward_flops == 2 * 10 * 100 + 2 * 10 * 5
    assert priced.training_flops == 2 * 10 * 100 + 2 * (2 * 10 * 5) + 3 * (2 * 10 * 5)
    assert priced.active_params == 10 * 100 + 10 * 5 + 10


def test_product_key_searches_halves():
    knobs = ProductKey(heads=3, k=2, key_dim=8)
    priced = ffn_cost(FFNSpec(d_ff=49, expert_width=1, selection=knobs), 10)
    query, halves, rows = 2 * 10 * 3 * 8, 3 * 2 * (2 * 7 * 4), 2 * (2 * 10 * 3 * 2)
    assert priced.forward_flops == query + halves + rows
    assert priced.active_params == 10 * 3 * 8 + 3 * 7 * 8 + 2 * 10 * 3 * 2 + 10


def test_straight_through_trains_every_block():
    spec = FFNSpec(d_ff=80, expert_width=10, selection=StraightThrough())
    low, high = ffn_cost(spec, 10, 0.25), ffn_cost(spec, 10, 0.75)
    assert low.training_flops == high.training_flops
    assert high.active_flops - low.active_flops == 0.5 * (2 * 2 * 10 * 80)
    assert ffn_cost(spec, 10) == ffn_cost(spec, 10, 0.5)
    assert ffn_cost(spec, 10, 0.0) == ffn_cost(spec, 10, 1 / 8)  # one block stays open


def test_relu_routing_costs_its_activity():
    spec = FFNSpec(d_ff=80, expert_width=10, selection=ReLURouting(target_activity=0.25))
    assert ffn_cost(spec, 10) == ffn_cost(spec, 10, 0.25)
    router = 2 * 10 * 8
    assert ffn_cost(spec, 10, 0.0).active_flops == router
    assert ffn_cost(spec, 10, 1.0).training_flops == 3 * (router + 2 * 2 * 10 * 80)


def test_costs_add_and_repeat():
    one = ffn_cost(FFNSpec(d_ff=100, selection=Dense()), 10)
    assert one + one == one.times(2)
    assert Cost() + one == one
    assert Cost(**json.loads(json.dumps(one.to_dict()))) == one


def test_a_step_costs_its_tokens():
    spec = FFNSpec(d_ff=128)
    assert step_flops(spec, BACKBONE, 3) == model_cost(spec, BACKBONE).training_flops * 3 * 16
