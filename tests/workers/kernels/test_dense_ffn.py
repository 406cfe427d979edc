"""One expert of all tokens: compiled activations between plain products, against float64."""

from __future__ import annotations

import pytest
import torch

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.expert_ffn import expert_ffn
from workers.kernels.numba import dense_ffn as module
from workers.kernels.pairs import Pairs

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-6}  # gelu's own is within 1.5e-7 of a unit


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", [3, 64])
def test_values_and_gradients_are_those_of_the_definition(
    form, monkeypatch, dtype, activation, gated, rows
):
    monkeypatch.setattr(module, "tile_rows", lambda x_TD, width: rows)  # several tiles, and one
    generator = torch.Generator().manual_seed(0)
    shapes = [(10, 6), (1, 9, 6), (1, 9, 6), (1, 9, 6), (10, 6)]
    made = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    x, k, g, v, dy = (m.to(dtype).requires_grad_() for m in made)
    leaves = [x, k, g, v] if gated else [x, k, v]
    seen = []
    y = expert_ffn(x, k, g if gated else None, v, Pairs(None, [10]), None, activation, seen.append)
    got = y, *torch.autograd.grad(y, leaves, dy)
    ex, ek, eg, ev, edy = (m.requires_grad_() for m in made)
    act, key = ACTIVATIONS[activation], ex @ ek[0].t()
    h = act(ex @ eg[0].t()) * key if gated else act(key)
    wanted = h @ ev[0]
    wanted = wanted, *torch.autograd.grad(wanted, [ex, ek, eg, ev] if gated else [ex, ek, ev], edy)
    for one, other in zip(got, wanted, strict=True):
        assert (one - other).abs().max() <= TOLERANCE[dtype] * other.abs().max()
    assert torch.allclose(torch.cat([s.double() for s in seen]), h, atol=1e-5)
    with torch.no_grad():
        again = expert_ffn(x, k, g if gated else None, v, Pairs(None, [10]), None, activation)
    assert torch.equal(again, y)


def test_only_wanted_gradients_are_made(form):
    x, k, v = torch.randn(5, 4), torch.randn(1, 3, 4, requires_grad=True), torch.randn(1, 3, 4)
    expert_ffn(x, k, None, v, Pairs(None, [5]), None, "relu").sum().backward()
    assert x.grad is None and v.grad is None
    assert k.grad.shape == k.shape
