"""The row kernels: values, gradients and FLOPs against a gather."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels import row_order
from workers.kernels.api.flops import custom_flops
from workers.kernels.api.rows import row_dot, row_sum
from workers.kernels.numba import whole_rows
from workers.kernels.place import as_on
from workers.kernels.row_order import RowOrder, wants_sparse
from workers.kernels.torch.rows import _dot as torch_dot

pytestmark = [pytest.mark.usefixtures("form"), pytest.mark.slow]

SIZES_T = [[3, 0, 2], [0, 0], [4], [1, 1, 1, 1]]  # pairs of each token; some tokens have none
N, D = 5, 7


@pytest.fixture(params=["small", "large", "much"], autouse=True)
def scale(request, monkeypatch):
    """Every test runs as it is, as large tables do, with gradients sparse at parameters, and as
    tables of which much is read, two tokens at a time."""
    if request.param == "large":
        for name in ("SPARSE_ROWS_A_PAIR", "SPARSE_ELEMENTS"):
            monkeypatch.setattr(row_order, name, -1)
    if request.param == "much":
        for name, value in {"MUCH": N * 2, "TOKENS": 1, "AT_ONCE": 2, "CACHED": 1}.items():
            monkeypatch.setattr(whole_rows, name, value)
    return request.param


def problem(sizes: list[int], dtype: torch.dtype = torch.float64):
    torch.manual_seed(sum(sizes))
    n_pairs, size_T = sum(sizes), torch.tensor(sizes)
    token_P = torch.arange(len(sizes)).repeat_interleave(size_T)
    row_P = torch.randint(N, (n_pairs,))
    row_P[1:2] = row_P[:1]  # a token may read a row twice
    order = RowOrder(row_P, token_P, size_T.cumsum(0) - size_T)
    table_ND = torch.randn(N, D, dtype=dtype, requires_grad=True)
    x_TD = torch.randn(len(sizes), D, dtype=dtype, requires_grad=True)
    weight_P = torch.randn(n_pairs, dtype=dtype, requires_grad=True)
    return x_TD, weight_P, table_ND, order


def dense(gradient):
    return gradient.to_dense() if gradient.is_sparse else gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES_T)
def test_values(sizes, dtype):
    x_TD, weight_P, table_ND, order = problem(sizes, dtype)
    row_P, token_P, _ = order.given
    want_TD = torch.zeros_like(x_TD)
    for p in range(len(row_P)):
        want_TD[token_P[p]] += (weight_P[p] * table_ND[row_P[p]]).detach()
    torch.testing.assert_close(row_sum(weight_P, table_ND, order), want_TD)
    want_P = (x_TD[token_P] * table_ND[row_P]).sum(1)
    torch.testing.assert_close(row_dot(x_TD, table_ND, order), want_P)


@pytest.mark.parametrize("sizes", SIZES_T)
def test_gradients(sizes):
    x_TD, weight_P, table_ND, order = problem(sizes)
    assert torch.autograd.gradcheck(lambda w, t: row_sum(w, t.clone(), order), (weight_P, table_ND))
    if sum(sizes):  # gradcheck wants an output that is not empty
        assert torch.autograd.gradcheck(lambda x, t: row_dot(x, t.clone(), order), (x_TD, table_ND))
    else:
        row_dot(x_TD, table_ND, order).sum().backward()
        assert not x_TD.grad.any()
        assert not dense(table_ND.grad).any()


@pytest.mark.parametrize("sizes", SIZES_T)
@pytest.mark.parametrize("leading", [(N,), (N, 1), (1, N), (N, 3)])
def test_a_sparse_gradient_is_the_dense_one(sizes, leading, scale):
    x_TD, weight_P, _, order = problem(sizes)
    row_P, token_P, start_T = order.given
    row_P = row_P * (leading[-1] if leading == (N, 3) else 1)
    table = torch.randn(*leading, D, dtype=torch.float64, requires_grad=True)
    order = RowOrder(row_P, token_P, start_T)

    def loss(sparse):
        y_P = row_dot(x_TD, table, order, sparse=sparse)
        return row_sum(weight_P * y_P, table, order, sparse).square().sum()

    (want,) = torch.autograd.grad(loss(sparse=False), table)
    loss(sparse=True).backward()
    assert table.grad.is_sparse == (scale == "large")
    torch.testing.assert_close(dense(table.grad), want)


def test_a_sparse_gradient_holds_the_touched_rows_in_order(scale):
    x_TD, _, table_ND, order = problem([3, 0, 2])
    row_dot(x_TD, table_ND, order, sparse=True).sum().backward()
    assert table_ND.grad.is_sparse == (scale == "large")
    if table_ND.grad.is_sparse:
        assert table_ND.grad._indices()[0].tolist() == sorted(set(order.given[0].tolist()))


def test_large_tables_beside_few_reads_want_sparse_gradients(scale):
    if scale == "small":
        large = torch.empty(1 << 9, 1 << 9, 64, device="meta")
        assert wants_sparse(large, 1 << 16)
        assert not wants_sparse(large, 1 << 17)  # many reads
        assert not wants_sparse(large[:2], 1)  # a small table


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_thresholds_themselves(dtype):
    """A table above all of them, unpatched, in the sizes the kernels' chunks have."""
    torch.manual_seed(0)
    n_tokens, k, n_rows, width = 128, 80, 1 << 16, 80
    table = torch.randn(n_rows, 1, width, dtype=dtype, requires_grad=True)
    x_TD = torch.randn(n_tokens, width, dtype=dtype)
    row_P = torch.randint(n_rows, (n_tokens * k,))
    token_P = torch.arange(n_tokens).repeat_interleave(k)
    start_T = torch.arange(n_tokens) * k
    y_P = row_dot(x_TD, table, RowOrder(row_P, token_P, start_T), sparse=True)
    want_P = torch.einsum("pd,pd->p", x_TD[token_P], table[row_P, 0])
    torch.testing.assert_close(y_P, want_P)
    y_P.sum().backward()
    assert table.grad.is_sparse
    want = torch.zeros(n_rows, width, dtype=dtype).index_add(0, row_P, x_TD[token_P])
    torch.testing.assert_close(table.grad.to_dense()[:, 0], want)


def test_gradients_through_strided_inputs():
    x_TD, _, table_ND, order = problem([3, 0, 2])
    wide = torch.randn(D, len(x_TD), dtype=torch.float64, requires_grad=True)

    def gathered(w, t):
        t = t.clone()
        y = row_dot(w.t(), t, order)
        return row_sum(y, t, order).t()

    assert torch.autograd.gradcheck(gathered, (wide, table_ND))


def test_known_dot_products_cost_nothing_forward_and_keep_the_gradient():
    x_TD, _, table_ND, order = problem([3, 0, 2])
    plain_P = row_dot(x_TD, table_ND, order)
    plain_P.square().sum().backward()
    want = x_TD.grad.clone(), dense(table_ND.grad).clone()
    x_TD.grad = table_ND.grad = None
    with FlopCounterMode(display=False, custom_mapping=custom_flops()) as counter:
        known_P = row_dot(x_TD, table_ND, order, plain_P.detach())
    assert counter.get_total_flops() == 0
    known_P.square().sum().backward()
    assert torch.equal(known_P, plain_P)
    torch.testing.assert_close((x_TD.grad, dense(table_ND.grad)), want)


def test_flops_are_two_an_element_read_and_twice_that_backward():
    x_TD, weight_P, table_ND, order = problem([3, 0, 2])
    for call in (
        lambda: row_sum(weight_P, table_ND, order),
        lambda: row_dot(x_TD, table_ND, order),
    ):
        with FlopCounterMode(display=False, custom_mapping=custom_flops()) as forward:
            y = call()
        with FlopCounterMode(display=False, custom_mapping=custom_flops()) as backward:
            y.sum().backward()
        assert forward.get_total_flops() == 2 * 5 * D
        assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_dots_in_bfloat16_on_a_gpu_where_torch_has_no_kernel():
    """Its own way there, taken on the CPU: the numbers of the product that others take."""
    torch.manual_seed(0)
    x_TD, table_ND = torch.randn(5, 80).bfloat16(), torch.randn(9, 80).bfloat16()
    row_P, token_P = torch.randint(9, (11,)), torch.arange(11) % 5
    with as_on("cuda"):
        y_P = torch_dot(x_TD, table_ND, row_P, token_P, torch.arange(5))
    want_P = (x_TD.double()[token_P] * table_ND.double()[row_P]).sum(1)
    assert y_P.dtype == torch.bfloat16
    torch.testing.assert_close(y_P.double(), want_P, rtol=4e-3, atol=4e-3)
