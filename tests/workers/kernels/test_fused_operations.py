"""The operations that make things anew in backward, against torch's own composition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS, value_and_slope
from workers.kernels.api.cross_entropy import linear_cross_entropy
from workers.kernels.api.expert_ffn import expert_ffn
from workers.kernels.api.residual_norm import residual_norm
from workers.kernels.api.rms_norm import EPS, rms_norm
from workers.kernels.api.rotary import normed_heads
from workers.kernels.numba import expert_ffn as numba_ffn
from workers.kernels.pairs import Pairs
from workers.kernels.torch import cross_entropy
from workers.kernels.torch import expert_ffn as torch_ffn
from workers.model import rotary_table

pytestmark = [pytest.mark.usefixtures("form"), pytest.mark.slow]

EXACT = {"atol": 1e-11, "rtol": 1e-11}


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()


def assert_same(got: Tensor, want: Tensor, leaves: list[Tensor]) -> None:
    """Values and every gradient."""
    torch.testing.assert_close(got, want, **EXACT)
    dy = torch.linspace(-1, 1, want.numel(), dtype=want.dtype).view(want.shape)
    for a, b in zip(
        torch.autograd.grad(got, leaves, dy), torch.autograd.grad(want, leaves, dy), strict=True
    ):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_slopes_are_the_derivatives(activation):
    x = normal(501)
    value, slope = value_and_slope(activation, x.detach())
    want = ACTIVATIONS[activation](x)
    torch.testing.assert_close(value, want, **EXACT)
    torch.testing.assert_close(slope, torch.autograd.grad(want.sum(), x)[0], **EXACT)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("parts", [0, 1, 3])
def test_all_tokens_of_one_expert_in_several_tiles(activation, gated, parts, monkeypatch):
    monkeypatch.setattr(torch_ffn, "TILE_ELEMENTS", 7 * 6)
    x, keys, gates, values = (normal(*s, seed=i) for i, s in enumerate([(20, 5), *[(1, 6, 5)] * 3]))
    weight = normal(20, parts, seed=9) if parts else None
    pairs = Pairs(None, [20])
    got = expert_ffn(x, keys, gates if gated else None, values, pairs, weight, activation)
    act = ACTIVATIONS[activation]
    h = act(x @ gates[0].t()) * (x @ keys[0].t()) if gated else act(x @ keys[0].t())
    if parts:
        h = (h.view(20, parts, -1) * weight.unsqueeze(2)).flatten(1)
    leaves = [x, keys, values, *([gates] if gated else []), *([weight] if parts else [])]
    assert_same(got, h @ values[0], leaves)


@pytest.mark.parametrize("counts", [[3, 0, 9, 1], [0, 13, 0, 0], [0, 0, 0, 0]])
def test_experts_read_their_own_tokens_twice_if_listed_twice(counts, monkeypatch):
    monkeypatch.setattr(torch_ffn, "TILE_ELEMENTS", 4 * 5)
    monkeypatch.setattr(numba_ffn, "TILE_ELEMENTS", 4 * 3)
    token = torch.tensor([0, 2, 2, 5, 1, 0, 0, 3, 4, 5, 1, 2, 2])[: sum(counts)]
    x, keys, values = normal(6, 5), normal(4, 3, 5, seed=1), normal(4, 3, 5, seed=2)
    weight = normal(sum(counts), 1, seed=3)
    got = expert_ffn(x, keys, None, values, Pairs(token, counts), weight, "gelu")
    expert = [b for b, count in enumerate(counts) for _ in range(count)]
    want = torch.zeros_like(x) + 0.0 * (x + keys.sum() + values.sum() + weight.sum())
    for p, b in enumerate(expert):
        row = weight[p] * (F.gelu(x[token[p]] @ keys[b].t()) @ values[b])
        want = want.index_add(0, token[p : p + 1], row[None])
    assert_same(got, want, [x, keys, values, weight])


def test_only_the_input_and_the_pre_activations_are_kept():
    x, keys, gates, values = (normal(*s) for s in [(20, 5), *[(4, 6, 5)] * 3])
    token, saved = torch.arange(20).repeat(2), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        expert_ffn(x, keys, gates, values, Pairs(token, [10] * 4), None, "silu")
    own = {t.data_ptr() for t in (x, keys, gates, values)}
    assert sum(t.numel() for t in saved if t.data_ptr() not in own) == 2 * 40 * 6


def test_without_gradients_nothing_is_kept():
    x, keys, values = normal(20, 5), normal(1, 6, 5), normal(1, 6, 5)
    with torch.no_grad():
        y = expert_ffn(x, keys, None, values, Pairs(None, [20]), None, "relu")
    assert y.grad_fn is None


def test_rms_norm():
    x, w = normal(4, 3, 17), normal(17, seed=1)
    assert_same(rms_norm(x, w), F.rms_norm(x, (17,), w, EPS), [x, w])


@pytest.mark.parametrize("added", [True, False])
def test_a_residual_sum_and_its_norm(added):
    x, y, w = normal(4, 3, 17), normal(4, 3, 17, seed=1), normal(17, seed=2)
    got = residual_norm(x, y if added else None, w)
    want = x + y if added else x
    normed = F.rms_norm(want, (17,), w, EPS)
    leaves = [x, y, w] if added else [x, w]
    assert_same(torch.stack(got), torch.stack((want, normed, normed)), leaves)


def turned(x: Tensor, w: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Normed, and each pair (i, i + C/2) turned as a complex number."""
    a, b = F.rms_norm(x, (x.shape[-1],), w, EPS).chunk(2, dim=-1)
    z = torch.view_as_complex(torch.stack((a, b), dim=-1)) * torch.complex(cos, sin)
    return torch.cat((z.real, z.imag), dim=-1)


@pytest.mark.parametrize(("sequences", "width"), [(1, 16), (2, 16), (2, 2), (1, 12), (1, 40)])
def test_heads_are_cut_from_their_product_normed_and_turned(sequences, width):
    qkv, w = normal(2, 9, 3, 4, width), normal(2, width, seed=1)
    position_NL = torch.arange(9)[None] + 5 * torch.arange(sequences)[:, None]
    cos, sin = (t.double() for t in rotary_table(position_NL, width, 1e4))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    want = turned(q, w[0], cos, sin), turned(k, w[1], cos, sin), v
    got = normed_heads(qkv, *w, cos, sin)
    assert_same(torch.stack(got), torch.stack(want), [qkv, w])


@pytest.mark.parametrize("chunk", [3, 100])
def test_linear_cross_entropy(chunk, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", {"cpu": chunk})
    x, w = normal(10, 6), normal(11, 6, seed=1)
    target = torch.arange(10)
    assert_same(linear_cross_entropy(x, w, target), F.cross_entropy(x @ w.t(), target), [x, w])


def test_a_hopeless_target_has_a_finite_loss():
    x, w = torch.tensor([[1000.0]]), torch.tensor([[1.0], [-1.0]])
    assert linear_cross_entropy(x, w, torch.tensor([1])).item() == pytest.approx(2000)


def test_the_mean_loss_of_no_tokens_is_refused():
    with pytest.raises(ValueError, match="of no tokens is undefined"):
        linear_cross_entropy(torch.ones(0, 2), torch.ones(3, 2), torch.ones(0, dtype=torch.long))
