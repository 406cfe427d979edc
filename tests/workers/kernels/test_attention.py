"""Causal attention in both of the CPU's forms, against float64 by its definition."""

from __future__ import annotations

import math

import pytest
import torch

from workers.kernels.api.attention import attention
from workers.kernels.dispatch import choose
from workers.kernels.numba.blocks import COLUMNS, ROWS
from workers.kernels.settings import Backend, override

# As a share of the largest value. torch's fused form has exponentials of 20 bits where a CPU has
# AVX-512 (pytorch/pytorch#115151), and errs five times as much as its own definition.
TOLERANCE = {
    Backend.NUMBA: {torch.float32: 3e-6, torch.float64: 1e-12},
    Backend.TORCH: {torch.float32: 1e-5, torch.float64: 1e-12},
}
DTYPES = (torch.float32, torch.float64)
# Whole blocks of queries, of keys and of a head's columns, one more, one less, and one alone, and
# several of columns side by side.
SIZES = [
    (1, 2),
    (ROWS, COLUMNS),
    (ROWS + 1, COLUMNS + 2),
    (4 * COLUMNS - 1, 6),
    (3 * ROWS, 40),
    (4 * COLUMNS + ROWS, 2 * COLUMNS),
    (COLUMNS, 4 * COLUMNS + 3),
]


def heads_of(length, width, dtype, scale=1.0):
    """Queries, keys, values and a gradient, as training lays them out."""
    generator = torch.Generator().manual_seed(length * width)
    shape = (2, length, 3, width)
    made = [scale * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(4)]
    return [x.transpose(1, 2).requires_grad_() for x in made]


def by_definition(q, k, v, scale):
    """softmax(scale q k^T) v over the keys up to each query."""
    hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
    score = (scale * q @ k.transpose(2, 3)).masked_fill(hidden, -math.inf)
    return score.softmax(3) @ v


def value_and_gradients(run, q, k, v, dy):
    y = run(q, k, v)
    return y, *torch.autograd.grad(y, (q, k, v), dy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("length", "width"), SIZES)
def test_values_and_gradients_are_those_of_the_definition(form, length, width, dtype):
    heads = heads_of(length, width, dtype)
    got = value_and_gradients(lambda *x: attention(*x, None, True, 0.7), *heads)
    exact = [x.detach().double().requires_grad_() for x in heads]
    wanted = value_and_gradients(lambda *x: by_definition(*x, 0.7), *exact)
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        largest = max(1.0, other.abs().max().item())
        assert (one - other).abs().max() <= TOLERANCE[form][dtype] * largest


def test_scores_far_apart_leave_no_nan(form):
    """One key takes all, and exponentials of the others are nothing."""
    heads = heads_of(40, 8, torch.float32, scale=30.0)
    got = value_and_gradients(lambda *x: attention(*x, None, True, 5.0), *heads)
    exact = [x.detach().double().requires_grad_() for x in heads]
    assert all(torch.isfinite(x).all() for x in got)
    wanted = by_definition(*exact[:3], 5.0)
    assert (got[0] - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_a_query_sees_no_later_key(form):
    q, k, v, _ = heads_of(20, 4, torch.float32)
    before = attention(q, k, v, None, True, 1.0)
    with torch.no_grad():
        k[:, :, 13:] += 1.0
        v[:, :, 13:] -= 2.0
    after = attention(q, k, v, None, True, 1.0)
    assert torch.equal(before[:, :, :13], after[:, :, :13])
    assert not torch.equal(before[:, :, 13], after[:, :, 13])


def test_attention_with_a_mask_or_cached_keys_is_torchs(monkeypatch):
    q, k, v, _ = heads_of(6, 4, torch.float32)
    with override(backend=Backend.NUMBA):
        assert choose("attention", [q, k, v], 1024)[0] is Backend.NUMBA
        assert choose("attention", [q, k, v], 1025)[0] is Backend.TORCH
        one = attention(q[:, :, -1:], k, v, None, False, 0.5)
        mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
        masked = attention(q, k, v, mask, False, 0.5)
        causal = attention(q, k, v, None, True, 0.5)
    assert torch.allclose(one, causal[:, :, -1:], atol=1e-6)
    assert torch.allclose(masked, causal, atol=1e-6)
