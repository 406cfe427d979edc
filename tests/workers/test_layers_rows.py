"""The row kernels: values, gradients and FLOPs against a gather."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels.flops import custom_flops
from workers.kernels.rows import row_dot, row_sum

SIZES_T = [[3, 0, 2], [0, 0], [4], [1, 1, 1, 1]]  # pairs of each token; some tokens have none
N, D = 5, 7


def problem(sizes: list[int], dtype: torch.dtype = torch.float64):
    torch.manual_seed(sum(sizes))
    n_pairs, size_T = sum(sizes), torch.tensor(sizes)
    token_P = torch.arange(len(sizes)).repeat_interleave(size_T)
    row_P = torch.randint(N, (n_pairs,))
    pairs = (row_P, token_P, size_T.cumsum(0) - size_T)
    table_ND = torch.randn(N, D, dtype=dtype, requires_grad=True)
    x_TD = torch.randn(len(sizes), D, dtype=dtype, requires_grad=True)
    weight_P = torch.randn(n_pairs, dtype=dtype, requires_grad=True)
    return x_TD, weight_P, table_ND, pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES_T)
def test_values(sizes, dtype):
    x_TD, weight_P, table_ND, pairs = problem(sizes, dtype)
    row_P, token_P, _ = pairs
    want_TD = torch.zeros_like(x_TD)
    for p in range(len(row_P)):
        want_TD[token_P[p]] += (weight_P[p] * table_ND[row_P[p]]).detach()
    torch.testing.assert_close(row_sum(weight_P, table_ND, *pairs), want_TD)
    want_P = (x_TD[token_P] * table_ND[row_P]).sum(1)
    torch.testing.assert_close(row_dot(x_TD, table_ND, *pairs), want_P)


@pytest.mark.parametrize("sizes", SIZES_T)
def test_gradients(sizes):
    x_TD, weight_P, table_ND, pairs = problem(sizes)
    assert torch.autograd.gradcheck(lambda w, t: row_sum(w, t, *pairs), (weight_P, table_ND))
    if sum(sizes):  # gradcheck wants an output that is not empty
        assert torch.autograd.gradcheck(lambda x, t: row_dot(x, t, *pairs), (x_TD, table_ND))
    else:
        row_dot(x_TD, table_ND, *pairs).sum().backward()
        assert not x_TD.grad.any()
        assert not table_ND.grad.any()


def test_gradients_through_strided_inputs():
    x_TD, _, table_ND, pairs = problem([3, 0, 2])
    wide = torch.randn(D, len(x_TD), dtype=torch.float64, requires_grad=True)

    def gathered(w, t):
        y = row_dot(w.t(), t, *pairs)
        return row_sum(y, t, *pairs).t()

    assert torch.autograd.gradcheck(gathered, (wide, table_ND))


def test_known_dot_products_cost_nothing_forward_and_keep_the_gradient():
    x_TD, _, table_ND, pairs = problem([3, 0, 2])
    plain_P = row_dot(x_TD, table_ND, *pairs)
    plain_P.square().sum().backward()
    want = x_TD.grad.clone(), table_ND.grad.clone()
    x_TD.grad = table_ND.grad = None
    with FlopCounterMode(display=False, custom_mapping=custom_flops()) as counter:
        known_P = row_dot(x_TD, table_ND, *pairs, plain_P.detach())
    assert counter.get_total_flops() == 0
    known_P.square().sum().backward()
    assert torch.equal(known_P, plain_P)
    torch.testing.assert_close((x_TD.grad, table_ND.grad), want)


def test_flops_are_two_an_element_read_and_twice_that_backward():
    x_TD, weight_P, table_ND, pairs = problem([3, 0, 2])
    for call in (
        lambda: row_sum(weight_P, table_ND, *pairs),
        lambda: row_dot(x_TD, table_ND, *pairs),
    ):
        with FlopCounterMode(display=False, custom_mapping=custom_flops()) as forward:
            y = call()
        with FlopCounterMode(display=False, custom_mapping=custom_flops()) as backward:
            y.sum().backward()
        assert forward.get_total_flops() == 2 * 5 * D
        assert backward.get_total_flops() == 2 * forward.get_total_flops()
