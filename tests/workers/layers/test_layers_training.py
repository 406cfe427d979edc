"""Every method inside the proxy: it trains, and its routing can be watched."""

from __future__ import annotations

import math
from dataclasses import replace

import oracles
import pytest
import torch
import torch.nn.functional as F
from test_layers_oracle import VOCAB, D, build

from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.methods import find, names
from search_space.methods.avgk import AvgK
from search_space.methods.dense import Dense
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.rates import Rates
from search_space.spec import FFNSpec
from workers.layers.recording import record_stats
from workers.layers.stats import NEAR_ZERO
from workers.model import ProxyLM
from workers.training.muon import PERIOD
from workers.training.optimizers import Optimizers

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=VOCAB, seq_len=8)
DESIGNS = [
    FFNSpec(d_ff=64, expert_width=16, selection=selection)
    for selection in (
        Dense(),
        TopK(k=2, balance_weight=0.01, bias_rate=0.01),
        Hash(k=2),
        AvgK(k=2),
        ProductKey(heads=2, k=2, key_dim=4),
        StraightThrough(),
        ReLURouting(l1_start=0.1),
    )
] + [
    FFNSpec(d_ff=64, expert_width=1, selection=selection)
    for selection in (
        TopK(k=8),
        Direct(k=8),
        ProductKey(heads=2, k=4, key_dim=4),
        ProductKey(heads=2, k=4, key_dim=4, values="pkm"),
        ReLURouting(),
    )
]
by_label = pytest.mark.parametrize("spec", DESIGNS, ids=lambda spec: spec.label)


def test_every_method_has_a_layer_and_a_case():
    assert set(names()) == {spec.method for spec in DESIGNS}
    for name in names():
        assert find(name).layer.partition(":")[0] == f"workers.layers.{name}"


@by_label
def test_every_parameter_learns(spec: FFNSpec):
    torch.manual_seed(0)
    model = ProxyLM(spec, BACKBONE).train()
    optimizers = Optimizers(model, Recipe(), Rates(0.007, 0.01), lr_multiplier=1.0)
    ids_NL = torch.randint(VOCAB, (2, 8))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    # The values start at zero: once each has had its turn, so has what stands before them.
    steps = 2 * PERIOD
    for step in range(steps + 1):
        out = model(ids_NL)
        loss = F.cross_entropy(model.logits(out.hidden_NLD).flatten(0, 1), ids_NL.flatten())
        losses.append(loss.item())
        (loss if out.aux_loss is None else loss + out.aux_loss).backward()
        if step < steps:
            optimizers.step(1.0)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert still == []


@by_label
@torch.no_grad()
def test_stats_are_the_oracle_picks(spec: FFNSpec):
    model = build(spec).eval()
    n_tokens, B = 20, spec.n_experts
    x_TD = torch.randn(n_tokens, D, dtype=torch.float64)
    ids_T = torch.randint(VOCAB, (n_tokens,))
    with record_stats(model) as recorded:
        model(x_TD, ids_T)
    summary = recorded["layers.0"].summary()
    tensors = {k.removeprefix("layers.0."): v for k, v in model.state_dict().items()}
    n_TD = model.layers[0].norm(x_TD)
    picks, _ = oracles.SELECT[spec.method](spec, tensors, n_TD, ids_T, False)
    reads = [pick for chosen in picks for pick in chosen]
    load = [sum(b == block for block, _ in reads) / len(reads) for b in range(B)]
    weight = [sum(float(w) for block, w in reads if b == block) for b in range(B)]
    share = [w / sum(weight) for w in weight]
    assert summary["active"] == pytest.approx(len(reads) / (n_tokens * B))
    assert summary["load"] == pytest.approx(load, abs=1e-6)
    assert summary["usage"] == sum(x > 0 for x in load) / B
    entropy = -sum(z * math.log(z) for z in share if z > 0)
    assert summary["unevenness"] == pytest.approx(math.log(B) - entropy)


@pytest.mark.parametrize("shared_width", [0, 8])
@by_label
@torch.no_grad()
def test_near_zero_is_the_share_of_the_units_read(spec: FFNSpec, shared_width: int):
    spec = replace(spec, shared_width=shared_width)
    model = build(spec).eval()
    layer = model.layers[0]
    x_TD = torch.randn(20, D, dtype=torch.float64)
    ids_T = torch.randint(VOCAB, (20,))
    with record_stats(model) as recorded:
        model(x_TD, ids_T)
    tensors = {k.removeprefix("layers.0."): v for k, v in model.state_dict().items()}
    n_TD = layer.norm(x_TD)
    picks, _ = oracles.SELECT[spec.method](spec, tensors, n_TD, ids_T, False)
    hidden = []
    if hasattr(layer.experts, "keys_BGD"):  # value rows have no hidden unit
        hidden += [
            F.gelu(layer.experts.keys_BGD[block] @ n)
            for n, chosen in zip(n_TD, picks, strict=True)
            for block, _ in chosen
        ]
    if shared_width:
        hidden += [F.gelu(layer.shared.keys_BGD[0] @ n) for n in n_TD]
    near_zero = recorded["layers.0"].summary()["near_zero"]
    if not hidden:
        assert near_zero == 0
        return
    want = float((torch.cat(hidden).abs() < NEAR_ZERO).double().mean())
    assert 0 < want < 1 or spec.method == "direct"  # which keeps the strongest
    assert near_zero == pytest.approx(want)


@by_label
def test_nothing_is_recorded_outside_the_block(spec: FFNSpec):
    model = build(spec)
    x_TD, ids_T = torch.randn(3, D, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    with record_stats(model) as recorded:
        model(x_TD, ids_T)
    model(x_TD, ids_T)
    assert recorded["layers.0"].tokens == 3
    assert all(layer.stats is None for layer in model.layers)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_loss_has_the_same_weight_in_any_depth(n_layers: int, depth: int):
    """The mean over layers and sub-layers: alpha / L in each, as OLMoE's trainer has it."""
    spec = FFNSpec(d_ff=64, expert_width=16, depth=depth, selection=TopK(k=1, balance_weight=0.5))
    model = ProxyLM(spec, replace(BACKBONE, n_layers=n_layers)).train()
    with torch.no_grad():  # equal shares of probability: the loss of each sub-layer is alpha
        for name, p in model.named_parameters():
            if name.endswith("router.weight_BD"):
                p.zero_()
    loss = model(torch.randint(VOCAB, (2, 8))).aux_loss.detach()
    assert float(loss) == pytest.approx(0.5)
