"""Row-wise Adam against AdamW, what it leaves alone, what it costs, and how it is wired in."""

from __future__ import annotations

import copy
import statistics
import time

import pytest
import torch
from torch import nn

from search_space.contract import Recipe
from search_space.rates import Rates
from workers.layers.value_table import ValueTable
from workers.training.optimizers import Optimizers, clip_gradients
from workers.training.row_adam import RowAdam

LR = 0.1


def sparse(shape: tuple[int, ...], rows: list[int], values: torch.Tensor) -> torch.Tensor:
    index = torch.stack(torch.unravel_index(torch.tensor(rows, dtype=torch.long), shape[:-1]))
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=True)


def adamw(p: nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW([p], LR, betas=(0.9, 0.99), weight_decay=0.0)


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    table = torch.randn(*shape, dtype=dtype)
    return nn.Parameter(table.clone()), nn.Parameter(table.clone())


@pytest.mark.parametrize("shape", [(6, 4), (6, 1, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_touched_every_step_move_as_under_adamw(shape, dtype):
    ours, theirs = pair(*shape, dtype=dtype)
    step, reference, rows = RowAdam([ours], LR), adamw(theirs), [0, 2, 5]
    for _ in range(30):
        g_RD = torch.randn(len(rows), 4, dtype=dtype)
        ours.grad = sparse(shape, rows, g_RD)
        theirs.grad = ours.grad.to_dense()
        step.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_untouched_rows_do_not_move_though_they_have_momentum():
    p, _ = pair(5, 3)
    step = RowAdam([p], LR)
    p.grad = torch.ones_like(p)
    step.step()
    before = p.detach().clone()
    p.grad = sparse((5, 3), [1, 3], torch.ones(2, 3, dtype=torch.float64))
    step.step()
    assert torch.equal((p != before).any(1), torch.tensor([False, True, False, True, False]))


def test_a_row_has_moved_as_adamw_moves_it_whenever_its_steps_came():
    ours, theirs = pair(4, 3)
    step, alone = RowAdam([ours], LR), nn.Parameter(theirs[2:3].detach().clone())
    reference = adamw(alone)
    for turn in range(40):
        g_13 = torch.randn(1, 3, dtype=torch.float64)
        late = turn >= 20 and turn % 3 == 0
        ours.grad = sparse((4, 3), [2 if late else 0], g_13)
        step.step()
        if late:
            alone.grad = g_13
            reference.step()
    torch.testing.assert_close(ours[2:3], alone)


@pytest.mark.parametrize("first_sparse", [False, True])
def test_dense_steps_are_adamw_and_mix_with_sparse_ones(first_sparse: bool):
    shape, rows = (5, 3), [0, 1, 2, 3, 4]
    ours, theirs = pair(*shape)
    step, reference = RowAdam([ours], LR), adamw(theirs)
    for turn in range(10):
        g_ND = torch.randn(*shape, dtype=torch.float64)
        ours.grad = sparse(shape, rows, g_ND) if (turn % 2 == 0) == first_sparse else g_ND
        theirs.grad = g_ND.clone()
        step.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_repeated_rows_are_one_gradient():
    ours, theirs = pair(4, 3)
    g_2D = torch.randn(2, 3, dtype=torch.float64)
    ours.grad = sparse((4, 3), [1, 1], g_2D)
    theirs.grad = sparse((4, 3), [1], g_2D.sum(0, keepdim=True))
    RowAdam([ours], LR).step()
    RowAdam([theirs], LR).step()
    torch.testing.assert_close(ours, theirs)


def test_an_empty_gradient_and_no_gradient_move_nothing():
    p, before = pair(4, 3)
    step = RowAdam([p], LR)
    step.step()
    p.grad = sparse((4, 3), [], torch.empty(0, 3, dtype=torch.float64))
    step.step()
    assert torch.equal(p, before)


def test_its_state_is_saved_and_restored():
    ours, twin = pair(4, 3)
    first, second = RowAdam([ours], LR), RowAdam([twin], LR)
    grads = [
        sparse((4, 3), [turn % 4], torch.randn(1, 3, dtype=torch.float64)) for turn in range(8)
    ]
    for turn, grad in enumerate(grads):
        if turn == 4:
            twin.data.copy_(ours.data)
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        ours.grad, twin.grad = grad, grad
        first.step()
        if turn >= 4:
            second.step()
    assert torch.equal(ours, twin)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_step_costs_the_touched_rows():
    n_rows, width, touched = 1 << 18, 32, 1 << 8
    table = torch.zeros(n_rows, width)
    lazy, full = nn.Parameter(table.clone()), nn.Parameter(table.clone())
    rows = torch.randperm(n_rows)[:touched].sort().values.tolist()
    lazy.grad = sparse((n_rows, width), rows, torch.randn(touched, width)).coalesce()
    full.grad = torch.randn(n_rows, width)
    whole = torch.optim.AdamW([full], LR, weight_decay=0.0, fused=True)
    part, ratios = RowAdam([lazy], LR), []
    for _ in range(12):
        start = time.perf_counter()
        part.step()
        middle = time.perf_counter()
        whole.step()
        ratios.append((time.perf_counter() - middle) / (middle - start))
    assert statistics.median(ratios) > 4


def test_clipping_scales_sparse_and_dense_gradients_by_one_norm():
    a, b = pair(4, 3)
    a.grad = sparse((4, 3), [1, 1], torch.randn(2, 3, dtype=torch.float64))
    b.grad = torch.randn(4, 3, dtype=torch.float64)
    twins = nn.Parameter(a.detach().clone()), nn.Parameter(b.detach().clone())
    twins[0].grad, twins[1].grad = a.grad.to_dense(), b.grad.clone()
    clip_gradients([a, b, nn.Parameter(torch.zeros(1))], 0.1)
    torch.nn.utils.clip_grad_norm_(twins, 0.1)
    torch.testing.assert_close(a.grad.to_dense(), twins[0].grad)
    torch.testing.assert_close(b.grad, twins[1].grad)


def test_tables_take_row_adam_and_a_clipped_sparse_step():
    model = nn.Module()
    model.both = nn.Sequential(ValueTable(3, 6), nn.Linear(3, 3))
    optimizers = Optimizers(model, Recipe(grad_clip=1.0), Rates(0.007, 2 * LR), lr_multiplier=9.0)
    (rows,) = [o for o in optimizers.optimizers if isinstance(o, RowAdam)]
    values = model.both[0].values_BGD
    assert [p is values for group in rows.param_groups for p in group["params"]] == [True]
    assert rows.param_groups[0]["lr"] == 2 * LR  # outside a design: not multiplied
    values.grad = sparse((6, 1, 3), [4], torch.full((1, 3), 100.0))
    for p in model.both[1].parameters():
        p.grad = torch.ones_like(p)
    optimizers.step(0.5)
    assert values.grad is None
    # The first step of Adam has the size of the learning rate, whatever the gradient's.
    torch.testing.assert_close(values[4, 0], torch.full((3,), -LR), rtol=1e-4, atol=0)
    assert not values[:4].any()
