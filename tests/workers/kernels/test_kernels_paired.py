"""Compiled products in mixed precision: factors of 16 bits in pairs, sums in float32."""

from __future__ import annotations

import pytest
import reference
import torch
from test_kernels_blocks import without_avx512
from test_kernels_numba import SHAPES, problem, routed
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels import dispatch
from workers.kernels.api.expert_ffn import expert_ffn
from workers.kernels.api.flops import custom_flops
from workers.kernels.bfloat16 import instructions
from workers.kernels.numba import blocks, grouped
from workers.kernels.numba import expert_ffn as numba_ffn
from workers.kernels.numba.paired import paired_columns, paired_rows

pytestmark = pytest.mark.slow

# Of sums of up to some hundred products, each exact in float32.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def rounded(x):
    """What a factor is in bfloat16, as reference sums take it."""
    return x.to(torch.bfloat16).double()


@pytest.fixture
def pairs_anyway(monkeypatch):
    """Pairs on a processor that multiplies none, too: its blocks take them apart."""
    monkeypatch.setattr(numba_ffn, "MULTIPLIES_PAIRS", True)


def check_product(inner, outer, counts, transposed):
    """The product of the rounded factors, written and added, with an odd number of terms or not."""
    x, w, token, expert, start = problem(inner, outer, counts, torch.float32)
    pairs = paired_columns(w.transpose(1, 2).contiguous()) if transposed else paired_rows(w)
    place = torch.randperm(len(token))
    want = reference.grouped_product(rounded(x), rounded(w), counts, token, place).view(-1, outer)
    y = torch.full((len(token), outer), torch.nan)
    runs = expert, start
    given = paired_columns(x), token, pairs, transposed
    grouped.grouped_product(*given, *runs, y, place, False, inner)
    torch.testing.assert_close(y.double(), want, **CLOSE)
    grouped.grouped_product(*given, *runs, y, place, True, inner)
    torch.testing.assert_close(y.double(), 2 * want, **CLOSE)


def check_gradient(inner, outer, counts):
    """The weight gradient of the rounded factors, of an odd number of rows or not."""
    x, _, token, expert, start = problem(inner, outer, counts, torch.float32)
    d = torch.randn(len(token), outer)
    parts = [part.split(counts) for part in (rounded(d), rounded(x)[token])]
    want = torch.stack([a.t() @ b for a, b in zip(*parts, strict=True)])
    new = torch.arange(len(counts)) % 2 == 0
    grad = torch.ones(len(counts), outer, inner)
    factors = paired_columns(d), paired_columns(x)
    grouped.grouped_weight_gradient(*factors, token, expert, start, new, grad)
    old = ~new | (torch.tensor(counts) == 0)
    torch.testing.assert_close(grad.double(), want + old.double()[:, None, None], **CLOSE)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("inner", "outer", "counts"), SHAPES)
def test_a_product_of_pairs(inner, outer, counts, transposed):
    check_product(inner, outer, counts, transposed)


@pytest.mark.parametrize(("inner", "outer", "counts"), SHAPES)
def test_a_weight_gradient_of_pairs(inner, outer, counts):
    check_gradient(inner, outer, counts)


def test_a_processor_that_multiplies_no_pairs_takes_them_apart(tmp_path):
    code = (
        "from workers.kernels.numba import blocks; import test_kernels_paired as t\n"
        "assert not blocks.MULTIPLIES_PAIRS\n"
        "t.check_product(37, 101, [7, 0, 12], False); t.check_gradient(37, 101, [7, 0, 12])\n"
        "print('held')"
    )
    assert without_avx512(code, tmp_path).split() == ["held"]


def gradients(tensors, pairs, mixed):
    """y and the gradients of all tensors."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in tensors]
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        y = expert_ffn(*leaves[:4], pairs, leaves[4], "silu")
    y.square().sum().backward()
    return [y.detach(), *(x.grad for x in leaves if x is not None)]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("width", [1, 3, 20])
@pytest.mark.usefixtures("pairs_anyway")
def test_experts_of_pairs_are_near_those_of_float32(width, gated):
    x, (keys, gates, values), pairs = routed(torch.float32, width)
    tensors = [x, keys, gates if gated else None, values, torch.rand(sum(pairs.counts), 1)]
    both = [gradients(tensors, pairs, mixed) for mixed in (True, False)]
    for near, exact in zip(*both, strict=True):
        assert near.dtype == torch.float32
        assert not torch.equal(near, exact), "nothing was rounded"
        # 2^-9 a factor, over up to four products.
        assert float((near - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("width", [3, 4])
@pytest.mark.usefixtures("pairs_anyway")
def test_pairs_count_the_same_flops(width):
    x, (keys, gates, values), pairs = routed(torch.float32, width)
    counts = []
    for mixed in (False, True):
        counter = FlopCounterMode(display=False, custom_mapping=custom_flops())
        with counter:
            gradients([x, keys, gates, values, None], pairs, mixed)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_a_processor_without_them_multiplies_narrow_experts_in_float32(monkeypatch):
    monkeypatch.setattr(numba_ffn, "MULTIPLIES_PAIRS", False)
    x, (keys, gates, values), pairs = routed(torch.float32)
    both = [gradients([x, keys, gates, values, None], pairs, mixed) for mixed in (True, False)]
    for mixed, exact in zip(*both, strict=True):
        assert torch.equal(mixed, exact)


@pytest.mark.parametrize("most", [3, 128])
def test_in_mixed_precision_wider_experts_take_the_torch_form(most, monkeypatch):
    ran = []
    monkeypatch.setattr(numba_ffn, "grouped_product", lambda *args: ran.append(args))
    monkeypatch.setattr(dispatch, "MOST_MIXED_UNITS", most)
    for width in (most, most + 1):
        x, (keys, gates, values), pairs = routed(torch.float32, width)
        with torch.autocast("cpu", torch.bfloat16):
            expert_ffn(x, keys, gates, values, pairs, None, "silu")
        assert bool(ran) == (width == most)
        ran.clear()


def test_the_limit_in_mixed_precision_is_the_processors():
    """That of float32 where blocks multiply pairs; elsewhere, and with AMX, a few units."""
    if instructions() == "avx512_bf16":
        assert blocks.MULTIPLIES_PAIRS
        assert dispatch.MOST_MIXED_UNITS == dispatch.MOST_UNITS
    else:
        assert dispatch.MOST_MIXED_UNITS == 128
