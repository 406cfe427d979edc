"""numba's forms, at the edges of their blocks, against obvious ones."""

from __future__ import annotations

import importlib.util
import logging

import pytest
import reference
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels import dispatch
from workers.kernels.api import form as form_module
from workers.kernels.api.expert_ffn import expert_ffn
from workers.kernels.api.flops import custom_flops
from workers.kernels.dispatch import NUMBA, choose, describe
from workers.kernels.numba import (
    activations,
    attention,
    grouped,
    heads,
    library,
    norms,
    orthogonalize,
    paired,
    product_key,
    rows,
    topk,
    whole_rows,
)
from workers.kernels.numba import expert_ffn as numba_ffn
from workers.kernels.numba.activations import CODES
from workers.kernels.numba.blocks import COLUMNS, ROWS
from workers.kernels.numba.product_key import product_key_search
from workers.kernels.pairs import Pairs
from workers.kernels.settings import Backend, override

pytestmark = pytest.mark.slow

INNER, PAIRS, WIDE = grouped.INNER, grouped.PAIRS, 4 * COLUMNS
DTYPES = [torch.float32, torch.float64]
MOST = {operation: limit.most for operation, limit in NUMBA.limits.items()}
# (inner, outer, pairs of each expert): one, whole blocks, one less and one more than a block, of
# rows, columns and terms; and columns of several blocks side by side, and of a part of one.
SHAPES = [
    (1, 1, [1]),
    (4, COLUMNS, [ROWS, 0, 2 * ROWS]),
    (5, COLUMNS - 1, [ROWS - 1, ROWS + 1]),
    (7, COLUMNS + 1, [1, 0, 3]),
    (INNER, 3, [2, 2]),
    (INNER + 1, 2 * COLUMNS, [ROWS, 1]),
    (3, 5, [PAIRS, PAIRS + 1, 2 * PAIRS - 1]),
    (3, 5, [0, 0]),
    (2, WIDE, [ROWS]),
    (COLUMNS + 1, WIDE - 1, [ROWS + 1, 2]),
    (WIDE + 2, WIDE + COLUMNS + 3, [3, ROWS]),
    (2 * COLUMNS, 2 * COLUMNS + 1, [5]),
]


def problem(inner: int, outer: int, counts: list[int], dtype: torch.dtype):
    g = torch.Generator().manual_seed(inner + outer)
    n_pairs = sum(counts)
    x = torch.randn(9, inner, dtype=dtype, generator=g)
    w = torch.randn(len(counts), inner, outer, dtype=dtype, generator=g)
    token = torch.randint(9, (n_pairs,), generator=g)
    expert = torch.arange(len(counts))
    start = torch.tensor([0, *counts]).cumsum(0)
    return x, w, token, expert, start


def close(dtype: torch.dtype) -> dict[str, float]:
    return (
        {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("inner", "outer", "counts"), SHAPES)
def test_a_grouped_product_from_tokens_and_to_tokens(inner, outer, counts, transposed, dtype):
    x, w, token, expert, start = problem(inner, outer, counts, dtype)
    held = w.transpose(1, 2).contiguous() if transposed else w
    place = torch.randperm(len(token))
    want = reference.grouped_product(x, w, counts, token, place).view(-1, outer)
    y = torch.full((len(token), outer), torch.nan, dtype=dtype)
    grouped.grouped_product(x, token, held, transposed, expert, start, y, place, False, inner)
    torch.testing.assert_close(y.double(), want, **close(dtype))
    total = torch.ones(9, outer, dtype=dtype)
    grouped.grouped_product(x, token, held, transposed, expert, start, total, token, True, inner)
    ones = torch.ones(9, outer, dtype=torch.float64)
    by_pair = reference.grouped_product(x, w, counts, token).view(-1, outer)
    torch.testing.assert_close(total.double(), ones.index_add(0, token, by_pair), **close(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inner", "outer", "counts"), SHAPES)
def test_a_weight_gradient_is_written_or_added(inner, outer, counts, dtype):
    x, _, token, expert, start = problem(inner, outer, counts, dtype)
    d = torch.randn(len(token), outer, dtype=dtype)
    parts = [part.split(counts) for part in (d.double(), x.double()[token])]
    want = torch.stack([a.t() @ b for a, b in zip(*parts, strict=True)])
    new = torch.arange(len(counts)) % 2 == 0
    grad = torch.ones(len(counts), outer, inner, dtype=dtype)
    grouped.grouped_weight_gradient(d, x, token, expert, start, new, grad)
    # Where nothing is read, nothing is written.
    old = ~new | (torch.tensor(counts) == 0)
    torch.testing.assert_close(grad.double(), want + old.double()[:, None, None], **close(dtype))


def test_the_operators_pass_torchs_own_checks():
    x, w, token, expert, start = problem(3, 5, [2, 2], torch.float32)
    y, place = torch.zeros(4, 5), torch.arange(4)
    pairs = [torch.tensor(p, dtype=torch.int32) for p in ([0, 0, 0, 1], [3, 1, 3, 0], [2, 0, 1, 3])]
    bags = pairs[1], torch.tensor([0, 3])
    query, keys = torch.randn(2, 2, 4), torch.randn(2, 3, 4)
    chosen = torch.tensor([[[0, 8], [3, 1]]])
    qkv, gains, angle = torch.randn(4, 3, 2, 6), torch.randn(2, 6), torch.randn(2, 3)
    turned = qkv.transpose(0, 1).contiguous()
    q, sums = torch.randn(1, 3, 2, 4), torch.zeros(1, 3, 2)
    calls = [
        (attention.attention_rows, (q, q, q, 0.5, q.clone(), sums)),
        (attention.attention_rows_backward, (q, q, q, q, q, sums, 0.5, *(3 * [q.clone()]))),
        (grouped.grouped_product, (x, token, w, False, expert, start, y, place, False, 3)),
        (
            grouped.grouped_weight_gradient,
            (y, x, token, expert, start, expert == 0, w.mT.contiguous()),
        ),
        (paired.pair_rows_of, (w.to(torch.int16), torch.zeros(2, 2, 5, dtype=torch.int32))),
        (rows.row_dots, (x, x, *pairs, torch.zeros(4))),
        (rows.add_rows, (torch.ones(4), x, *pairs, x.clone())),
        (rows.row_gradient, (torch.ones(4), x, *pairs, False, x.clone())),
        (rows.row_sum_backward, (torch.ones(4), x, x, *pairs, False, torch.ones(4), x.clone())),
        (rows.row_dot_backward, (torch.ones(4), x, x, *pairs, True, x.clone(), x[:2].clone())),
        (topk.top_rows, (x, torch.zeros(9, 2, dtype=torch.long), torch.zeros(9, 2))),
        (
            topk.top_sums,
            (
                torch.ones(2, 2, 2),
                torch.zeros(2, 2, 2, dtype=torch.long),
                3,
                torch.ones(1, 2, 2),
                torch.zeros(1, 2, 2, dtype=torch.long),
            ),
        ),
        (activations.hidden, (1, x, x, x[:, 0].clone(), x.clone())),
        (
            activations.hidden_backward,
            (2, x, x, x[:, 0].clone(), x.clone(), x.clone(), x.clone(), x[:, 0].clone()),
        ),
        (norms.rms_norm_rows, (x, x[0], 1e-6, x.clone(), torch.ones(9))),
        (norms.rms_norm_rows_backward, (x, x, x[0], torch.ones(9), x.clone(), x[0].clone())),
        (heads.heads_rows, (qkv, gains, angle, angle, 1e-6, turned)),
        (
            heads.heads_rows_backward,
            (*turned, qkv, gains, angle, angle, 1e-6, qkv.clone(), gains.clone()),
        ),
        *(
            (call, (torch.ones(1, 2, 2), chosen, query, keys, query.clone(), keys.clone()))
            for call in (product_key.search_backward, product_key.search_products)
        ),
        (orthogonalize.newton_schulz, (w, 1.0, 1.0, 1.0, 2, True, w.clone())),
        (whole_rows.whole_sums, (torch.ones(4), x, *bags, x[:2].clone())),
        (whole_rows.whole_dots, (x[:2], x, *bags, torch.ones(4))),
        (whole_rows.whole_gradient, (torch.ones(4), x[:2], *bags, x.clone())),
    ]
    assert {call.name() for call, _ in calls} == library.LIBRARY._op_defs
    for call, args in calls:
        torch.library.opcheck(call, args)


@pytest.mark.parametrize(
    ("root", "k"), [(1, 1), (3, 2), (3, 9), (7, 5), (20, 16), (100, MOST["product_key_search"])]
)
@pytest.mark.parametrize("equal", [False, True])
def test_product_key_search_finds_the_best_of_all_pairs(root, k, equal):
    torch.manual_seed(k)
    query = torch.randn(4, 11, 6, dtype=torch.float64)
    keys = torch.randn(4, root, 6, dtype=torch.float64)
    if equal:  # every sub-key twice, so that sums are equal by twos and fours
        keys[:, root // 2 : root // 2 * 2] = keys[:, : root // 2]
    score, index = product_key_search(query, keys, k)
    all_scores = torch.bmm(query, keys.transpose(1, 2)).view(2, 2, 11, root)
    want, want_index = reference.product_key_topk(all_scores, k)
    torch.testing.assert_close(score, want)
    assert equal or torch.equal(index, want_index)
    assert all(len(set(row)) == k for row in index.flatten(0, 1).tolist())
    first, second = all_scores.unbind(1)
    sums = first.gather(2, index // root) + second.gather(2, index % root)
    torch.testing.assert_close(score, sums)


@pytest.mark.parametrize("keys_a_choice", [0, 4])  # by the chosen sub-keys, by all of them
def test_product_key_searchs_gradients_in_parts_of_the_tokens(monkeypatch, keys_a_choice):
    monkeypatch.setattr("workers.kernels.numba.product_key.CACHED_SCORES", 8)
    monkeypatch.setattr("workers.kernels.numba.product_key.KEYS_A_CHOICE", keys_a_choice)
    query = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(4, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, c: product_key_search(q, c, 3)[0], (query, keys))


@pytest.mark.parametrize("k", [1, 3, 8])
def test_score_rows_of_equal_scores_of_infinities_and_of_nan(k):
    score = torch.randn(5, 40)
    score[1] = 0
    score[2, 7:20] = torch.inf
    score[3] = torch.nan
    score[4, ::2] = -torch.inf
    place, best = torch.full((5, k), -1), torch.empty(5, k)
    topk.top_rows(score, place, best)
    want = score.topk(k).values
    torch.testing.assert_close(best, want, equal_nan=True)
    torch.testing.assert_close(score.gather(1, place), want, equal_nan=True)
    assert all(len(set(row)) == k for row in place.tolist())


@pytest.mark.parametrize("k", [1, 3, 9, 16])
def test_sums_of_equal_scores_of_infinities_and_of_nan(k):
    half = torch.randn(2, 6, 4).sort(2, descending=True).values
    half[:, 1] = 0
    half[:, 2, :2] = torch.inf
    half[:, 3] = torch.nan
    half[0, 4, 0] = torch.nan  # torch's order: it is the largest
    half[:, 5, 1:] = -torch.inf
    place = torch.arange(4).expand(2, 6, 4).contiguous()
    score, index = torch.empty(1, 6, k), torch.full((1, 6, k), -1)
    topk.top_sums(half, place, 4, score, index)
    sums = (half[0, :, :, None] + half[1, :, None, :]).flatten(1)
    torch.testing.assert_close(sums.gather(1, index[0]), score[0], equal_nan=True)
    assert all(len(set(row)) == k for row in index[0].tolist())
    numbers = [0, 1, 2, 5]  # the order of NaN is no one's
    torch.testing.assert_close(score[0, numbers], sums[numbers].topk(k).values)


def routed(dtype: torch.dtype, width: int = 3) -> tuple[Tensor, list[Tensor], Pairs]:
    torch.manual_seed(0)
    x = torch.randn(6, 5, dtype=dtype)
    matrices = [torch.randn(4, width, 5, dtype=dtype, requires_grad=True) for _ in range(3)]
    return x, matrices, Pairs(torch.tensor([0, 2, 2, 5, 1, 0]), [3, 0, 2, 1])


@pytest.mark.parametrize("activation", sorted(CODES))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_hidden_units_and_their_gradients(activation, gated, weighted, dtype):
    # Far out and at 0 too; float32 has exponentials of its own.
    key = torch.cat((torch.linspace(-100, 100, 201), torch.linspace(-6, 6, 201))).view(6, 67)
    key, gate, weight = (x.to(dtype) for x in (key, key.flip(0, 1) + 0.5, torch.rand(6)))
    leaves = [x.double().requires_grad_() for x in (key, gate, weight)]
    want = reference.activated(leaves[int(gated)], activation)
    want = want * leaves[0] if gated else want
    want = want * leaves[2][:, None] if weighted else want
    none = key.new_empty(0)
    given = (key, gate if gated else none.view(0, 67), weight if weighted else none)
    h = torch.empty_like(key)
    activations.hidden(CODES[activation], *given, h)
    tight = (
        {"rtol": 1e-5, "atol": 2e-5} if dtype is torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    )
    torch.testing.assert_close(h.double(), want.detach(), **tight)
    dh, again, d_gate, d_weight = torch.ones_like(h), torch.empty_like(h), *given[1:]
    d_gate, d_weight = torch.empty_like(d_gate), torch.empty_like(d_weight)
    activations.hidden_backward(CODES[activation], *given, dh, again, d_gate, d_weight)
    torch.testing.assert_close(again, h)
    got = [dh, *([d_gate] if gated else []), *([d_weight] if weighted else [])]
    wanted = [leaves[0], *leaves[1 : 1 + gated], *leaves[2 : 2 + weighted]]
    for a, b in zip(got, torch.autograd.grad(want.sum(), wanted), strict=True):
        torch.testing.assert_close(a.double(), b, **tight)


def test_the_forms_count_the_same_flops():
    x, (keys, gates, values), pairs = routed(torch.float32)
    flops = []
    for backend in (None, Backend.TORCH):
        counter = FlopCounterMode(display=False, custom_mapping=custom_flops())
        with override(backend=backend), counter:
            expert_ffn(x, keys, gates, values, pairs, None, "silu").sum().backward()
        flops.append(counter.get_total_flops())
    # x needs no gradient: three products forward; one of the values and three weights' backward.
    assert flops == [7 * 2 * 6 * 3 * 5] * 2


def test_wide_experts_other_dtypes_and_the_switch_take_the_torch_form(monkeypatch):
    def refuse(*args):
        raise AssertionError("the numba form ran")

    monkeypatch.setattr(numba_ffn, "grouped_product", refuse)
    wide = MOST["expert_ffn"] + 1
    for dtype, width, backend in (
        (torch.float32, wide, None),
        (torch.bfloat16, 3, None),
        (torch.float32, 3, Backend.TORCH),
    ):
        x, (keys, gates, values), pairs = routed(dtype, width)
        with override(backend=backend):
            expert_ffn(x, keys, gates, values, pairs, None, "silu").sum().backward()
    x, (keys, gates, values), pairs = routed(torch.float32)
    with pytest.raises(AssertionError, match="the numba form ran"):
        expert_ffn(x, keys, gates, values, pairs, None, "silu")


@pytest.fixture
def no_numba(monkeypatch):
    """A process that has not asked for numba yet, and will not find it."""

    def load(name):
        raise ImportError("No module named 'numba'", name="numba")

    monkeypatch.setattr(dispatch.importlib, "import_module", load)
    caches = (dispatch.numba_fault, dispatch.load)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("backend", [Backend.AUTO, Backend.NUMBA])
def test_without_numba_the_torch_forms_run_and_say_why(no_numba, caplog, backend):
    with caplog.at_level(logging.WARNING), override(backend=backend):
        for _ in range(2):
            assert choose("rms_norm", [torch.ones(1)]) == (
                Backend.TORCH,
                "No module named 'numba'",
            )
        assert describe("cpu") == "torch (No module named 'numba'), products torch"
    assert [record.getMessage() for record in caplog.records] == [
        "the torch forms run on the CPU: No module named 'numba'"
    ]


def test_an_exported_model_runs_on_torch_alone():
    """Whatever version of this package may be installed beside it."""
    place = importlib.util.spec_from_file_location("exported_form", form_module.__file__)
    exported = importlib.util.module_from_spec(place)
    place.loader.exec_module(exported)
    assert exported.form("rms_norm", len, torch.ones(1)) is len
    assert form_module.form("rms_norm", len, torch.ones(1)) is not len
