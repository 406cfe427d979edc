"""Muon, and the grouping of parameters."""

from __future__ import annotations

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.methods.product_key import ProductKey
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.rates import Rates
from search_space.spec import FFNSpec
from workers.kernels.api.orthogonalize import orthogonalize
from workers.kernels.place import as_on
from workers.model import ProxyLM
from workers.training.muon import NS_COEFFICIENTS, NS_STEPS, PERIOD, Muon
from workers.training.optimizers import Kind, Optimizers, group_parameters


@pytest.mark.parametrize("shape", [(3, 16, 64), (3, 64, 16), (1, 32, 32)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(g, NS_COEFFICIENTS, NS_STEPS))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5


def test_a_batch_is_orthogonalized_matrix_by_matrix():
    g = torch.randn(4, 8, 24, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([orthogonalize(m[None], NS_COEFFICIENTS, NS_STEPS) for m in g])
    together = orthogonalize(g, NS_COEFFICIENTS, NS_STEPS)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_muon_minimises_and_its_update_has_the_promised_size():
    w = torch.nn.Parameter(torch.zeros(2, 8, 32))
    target = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([w], lr=0.1)
    (w - target).square().sum().backward()
    for _ in range(PERIOD):
        optimizer.step()
    # Singular values about 1, times 0.2 sqrt(max(8, 32)), spread over 8 x 32 entries; a matrix
    # moves once in a period, and as far as in all of its steps.
    assert 0.5 < float(w.detach().square().mean().sqrt()) / (PERIOD * 0.1 * 0.2) < 1.5
    before = (w - target).square().sum().item()
    for _ in range(50):
        optimizer.zero_grad()
        (w - target).square().sum().backward()
        optimizer.step()
    assert (w - target).square().sum().item() < before / 2


def test_matrices_take_turns_and_every_gradient_counts():
    generator = torch.Generator().manual_seed(0)
    stack, single = (torch.nn.Parameter(torch.zeros(n, 8, 16)) for n in (5, 1))
    optimizer = Muon([stack, single], lr=0.1, momentum=0.9)
    moved, momentum = [], torch.zeros(6, 8, 16)
    for _ in range(PERIOD):
        before = torch.cat((stack, single)).detach().clone()
        for p in (stack, single):
            p.grad = torch.randn(p.shape, generator=generator)
        momentum = 0.9 * momentum + 0.1 * torch.cat((stack.grad, single.grad))
        optimizer.step()
        moved.append((torch.cat((stack, single)) != before).any(2).any(1))
    assert torch.stack(moved).sum(0).tolist() == [1] * 6
    counts = torch.stack(moved).sum(1)
    assert int(counts.max() - counts.min()) <= 1
    states = torch.cat([optimizer.state[p]["momentum"] for p in (stack, single)])
    torch.testing.assert_close(states, momentum)


@pytest.mark.parametrize("factor", [0.5, torch.tensor(0.5)], ids=["number", "tensor"])
@pytest.mark.parametrize("name", ["olmoe", "pkm"])
def test_what_a_gpu_does_together_is_what_a_cpu_does_one_by_one(name, factor):
    backbone = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=50, seq_len=8)
    spec, moved = PRESETS[name](backbone), []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = ProxyLM(spec, backbone)
        with as_on(device):
            optimizers = Optimizers(model, Recipe(grad_clip=0.1), Rates(0.01, 0.01), 2.0)
            for _ in range(PERIOD + 1):
                for p in model.parameters():
                    p.grad = torch.randn_like(p)
                optimizers.step(factor)
        moved.append([p.detach() for p in model.parameters()])
    for ours, theirs in zip(*moved, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_matrices_take_muon_and_tables_routers_and_norms_adamw():
    spec = FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=1), shared_width=16, output_gate=True)
    model = ProxyLM(spec, Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=50, seq_len=8))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = group_parameters(model)
    muon = {names[id(p)] for (kind, _), ps in groups.items() if kind is Kind.MATRIX for p in ps}
    assert muon == {
        "layers.0.attention.qkv_3DD",
        "layers.0.attention.out_DD",
        "layers.0.ffn.layers.0.experts.keys_BGD",
        "layers.0.ffn.layers.0.experts.values_BGD",
        "layers.0.ffn.layers.0.shared.keys_BGD",
        "layers.0.ffn.layers.0.shared.values_BGD",
    }
    assert sum(len(ps) for ps in groups.values()) == len(names)


def test_the_learning_rate_multiplier_reaches_the_ffn_alone():
    model = ProxyLM(FFNSpec(d_ff=32), Backbone(d_model=16, n_layers=1, n_heads=2, seq_len=8))
    optimizers = Optimizers(model, Recipe(), Rates(lr=0.5, matrix_lr=0.25), lr_multiplier=2.0)
    rates = {
        id(p): group["lr"]
        for o in optimizers.optimizers
        for group in o.param_groups
        for p in group["params"]
    }
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert by_name["embed.weight"] == 0.5
    assert by_name["layers.0.attention.out_DD"] == 0.25
    assert by_name["layers.0.ffn.layers.0.experts.keys_BGD"] == 0.5
    assert by_name["layers.0.ffn.layers.0.norm.weight"] == 1.0


def test_only_our_optimizer_asks_for_sparse_gradients_of_tables():
    spec = FFNSpec(d_ff=1 << 16, expert_width=1, selection=ProductKey(heads=1, k=1, key_dim=4))
    model = ProxyLM(spec, Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=50, seq_len=8))
    values = model.layers[0].ffn.layers[0].experts.values_BGD

    def backward():
        model(torch.arange(8)[None]).hidden_NLD.sum().backward()
        return values.grad

    # Other trainers' optimizers refuse sparse gradients.
    assert not backward().is_sparse
    values.grad = None
    Optimizers(model, Recipe(), Rates(0.007, 0.01), lr_multiplier=1.0)
    assert backward().is_sparse
