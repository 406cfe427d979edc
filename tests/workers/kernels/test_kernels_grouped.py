"""The grouped product against a loop over rows."""

from __future__ import annotations

import pytest
import torch

from workers.kernels.api.grouped import grouped_mm

COUNTS = [[3, 0, 5, 1], [0, 0, 0, 0], [1], [0, 7], [64, 1, 2]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("inner", "outer"), [(7, 5), (1, 3), (16, 1)])
def test_it_equals_a_product_a_row(counts, inner, outer):
    g = torch.Generator().manual_seed(0)
    n_rows = sum(counts)
    x = torch.randn(n_rows, inner, dtype=torch.float64, generator=g, requires_grad=True)
    w = torch.randn(len(counts), outer, inner, dtype=torch.float64, generator=g, requires_grad=True)
    y = grouped_mm(x, w.transpose(1, 2), counts)
    expert = [b for b, count in enumerate(counts) for _ in range(count)]
    rows = [x[p] @ w[expert[p]].T for p in range(n_rows)]
    expected = torch.stack(rows) if rows else y.detach() * 1.0
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(y.shape, dtype=torch.float64, generator=g)
    got = torch.autograd.grad((y * weights).sum(), (x, w))
    if rows:
        want = torch.autograd.grad((expected * weights).sum(), (x, w), allow_unused=True)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    else:
        assert not got[1].any()


def test_an_unread_experts_gradient_is_zero_not_garbage():
    x, w = torch.ones(4, 3), torch.ones(3, 3, 2, requires_grad=True)
    grouped_mm(x, w, [4, 0, 0]).sum().backward()
    assert w.grad[0].any()
    assert not w.grad[1:].any()


def test_counts_that_do_not_cover_the_rows_are_refused():
    with pytest.raises(ValueError, match="counts must give the 4 rows of 2 experts: got 3 rows"):
        grouped_mm(torch.ones(4, 3), torch.ones(2, 3, 2), [2, 1])
