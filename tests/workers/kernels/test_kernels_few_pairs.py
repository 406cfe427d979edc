"""What torch computes without gradients, in fewer calls, is what it computes with them."""

from __future__ import annotations

import pytest
import torch

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.pairs import Operands, Pairs
from workers.kernels.torch import expert_ffn as module
from workers.kernels.torch.expert_ffn import expert_ffn
from workers.kernels.torch.rms_norm import rms_norm
from workers.kernels.torch.rotary import normed_heads

# Tokens, experts, their width, width of the model, and experts a token; 0 for chance.
SHAPES = {
    "one token, few of many": (1, 64, 16, 32, 4),
    "many of many, one product": (8, 16, 16, 32, 4),
    "wide experts": (5, 4, 300, 32, 1),
    "rows of no whole 16 bytes": (6, 8, 9, 18, 3),
    "any number a token, none for some": (12, 6, 16, 32, 0),
    "one expert": (7, 1, 16, 32, 1),
}


def given(shape, dtype, gated, weighted):
    n_tokens, n_experts, width, d_model, k = shape
    g = torch.Generator().manual_seed(0)
    if k:
        rank_TB = torch.rand(n_tokens, n_experts, generator=g)
        open_TB = torch.zeros(n_tokens, n_experts).scatter(1, rank_TB.topk(k).indices, 1).bool()
    else:
        open_TB = torch.rand(n_tokens, n_experts, generator=g) < 0.3
        open_TB[3] = False
    token_P = open_TB.t().nonzero()[:, 1]
    counts = open_TB.sum(0).tolist()

    def normal(*size):
        return torch.randn(size, generator=g, dtype=torch.float64).to(dtype)

    experts = [normal(n_experts, width, d_model) * d_model**-0.5 for _ in range(3)]
    weight_P1 = normal(len(token_P), 1).abs() if weighted else None
    x_TD = normal(n_tokens, d_model)
    keys, gates, values = experts
    return Operands(x_TD, keys, gates if gated else None, values, weight_P1), Pairs(token_P, counts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_experts", [1, 6])
def test_a_token_that_opens_no_expert_gets_zero(n_experts, dtype):
    experts = [torch.randn(n_experts, 16, 32, dtype=dtype) for _ in range(3)]
    operands = Operands(torch.randn(1, 32, dtype=dtype), *experts, torch.empty(0, 1, dtype=dtype))
    none = Pairs(torch.empty(0, dtype=torch.long), [0] * n_experts)
    with torch.no_grad():
        y_TD = expert_ffn(operands, none, "gelu", None)
    assert y_TD.shape == (1, 32) and y_TD.dtype == dtype and not y_TD.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_experts(shape, gated, weighted, dtype, monkeypatch):
    operands, pairs = given(SHAPES[shape], dtype, gated, weighted)
    wants = [None if x is None else x.clone().requires_grad_() for x in operands]
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]
    calls, few = [], module.few
    monkeypatch.setattr(module, "few", lambda *a: calls.append(1) or few(*a))
    for name in ACTIVATIONS:
        expected = expert_ffn(Operands(*wants), pairs, name, None).detach()
        assert not calls, "with gradients all is as it was"
        seen = []
        with torch.no_grad():
            found = expert_ffn(operands, pairs, name, seen.append)
        assert calls.pop() and found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        assert sum(h.shape[0] for h in seen) == sum(pairs.counts)


@pytest.mark.parametrize("gated", [False, True])
def test_a_dense_ffn(gated):
    operands, _ = given(SHAPES["one expert"], torch.float32, gated, False)
    pairs = Pairs(None, [len(operands.x_TD)])
    wants = [None if x is None else x.clone().requires_grad_() for x in operands]
    expected = expert_ffn(Operands(*wants), pairs, "silu", None).detach()
    with torch.no_grad():
        found = expert_ffn(operands, pairs, "silu", None)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_more_pairs_than_a_tile_go_through_in_tiles(monkeypatch):
    operands, pairs = given(SHAPES["many of many, one product"], torch.float32, True, True)
    with torch.no_grad():
        expected = expert_ffn(operands, pairs, "silu", None)
        monkeypatch.setattr(module, "TILE_ELEMENTS", 64)
        monkeypatch.setattr(module, "few", lambda *a: pytest.fail("these are many"))
        found = expert_ffn(operands, pairs, "silu", None)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_norms_and_heads():
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(3, 5, 32, generator=g), torch.randn(32, generator=g)
    qkv, w_2C = torch.randn(3, 5, 3, 4, 8, generator=g), torch.randn(2, 8, generator=g)
    angle = torch.randn(3, 1, 5, 4, generator=g)
    rotary = angle.cos(), angle.sin()
    normed = rms_norm(x, w.clone().requires_grad_(), 1e-6)
    heads = normed_heads(qkv, *w_2C.clone().requires_grad_().unbind(), *rotary, 1e-6)
    with torch.no_grad():
        again = rms_norm(x, w, 1e-6), *normed_heads(qkv, *w_2C, *rotary, 1e-6)
    for found, expected in zip(again, (normed, *heads), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
