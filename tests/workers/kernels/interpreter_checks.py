"""Every kernel and configuration against float64, in Triton's interpreter on the CPU.

Run in a process of its own with TRITON_INTERPRET=1: prints one JSON line a check, {"operation",
"case", "error"}, error "" where it held. bfloat16 is left out: the interpreter is wrong there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from unittest import mock

import interpreter_fused as fused
import interpreter_router as router
import reference
import torch
from interpreter_tools import DTYPES, close, normal, pairs, tell
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels.api.grouped import grouped_mm
from workers.kernels.api.rows import row_dot as dispatched_dot
from workers.kernels.api.rows import row_sum as dispatched_sum
from workers.kernels.pairs import Loads
from workers.kernels.row_order import RowOrder
from workers.kernels.settings import Backend, override
from workers.kernels.triton import (
    cross_entropy,
    expert_products,
    gated,
    grouped,
    product_key,
    rms_norm,
    rows,
    spread,
)
from workers.kernels.triton import row_gradient as gradient

COUNTS = ([3, 0, 37, 1], [0, 0, 1], [130])  # empty experts, one token, more than a tile
SIZES_T = ([3, 0, 2, 21], [1], [0, 0, 5])  # pairs of each token
Check = tuple[str, str, Callable[[], None]]


def product(dtype, counts, gathered: bool, transposed: bool) -> None:
    n_rows, inner, outer = sum(counts), 37, 19
    w = normal(len(counts), outer, inner, dtype=dtype, seed=1).transpose(1, 2)
    w = w if transposed else w.contiguous()
    extra = {"token_P": torch.arange(n_rows) // 3} if gathered else {}
    x = normal(n_rows, inner, dtype=dtype)
    end = torch.tensor(counts).cumsum(0)
    got = grouped.grouped_product(x, w, end, **extra)
    close(got, reference.grouped_product(x, w, counts, **extra), dtype)


def weight_gradient(dtype, counts) -> None:
    n_rows, inner, outer = sum(counts), 37, 19
    x, dy = normal(n_rows, inner, dtype=dtype), normal(n_rows, outer, dtype=dtype, seed=1)
    w = torch.full((len(counts), outer, inner), float("nan"), dtype=dtype).transpose(1, 2)
    end = torch.tensor(counts).cumsum(0)
    got = grouped.grouped_weight_gradient(x, dy, w, end)
    free = torch.zeros(w.shape, dtype=torch.float64, requires_grad=True)
    y = reference.grouped_product(x, free, counts)
    (want,) = torch.autograd.grad(y, free, dy.double())
    close(got, want, dtype)
    assert got.stride() == w.stride()


def row_sum(dtype, sizes) -> None:
    row_P, token_P, start_T = pairs(sizes, 11)
    weight, table = normal(len(row_P), dtype=dtype), normal(11, 301, dtype=dtype, seed=1)
    got = rows.weighted_row_sum(weight, table, row_P, start_T)
    close(got, reference.row_sum(weight, table, row_P, token_P, len(sizes)), dtype)


def row_dot(dtype, sizes) -> None:
    row_P, token_P, start_T = pairs(sizes, 11)
    x, table = normal(len(sizes), 301, dtype=dtype), normal(11, 301, dtype=dtype, seed=1)
    got = rows.dots_of_rows(x, table, row_P, token_P, start_T)
    close(got, reference.row_dot(x, table, row_P, token_P), dtype)


def row_gradient(dtype, sizes) -> None:
    row_P, token_P, _ = pairs(sizes, 7)
    weight, x = normal(len(row_P), dtype=dtype), normal(len(sizes), 301, dtype=dtype, seed=1)
    got = gradient.row_gradient(weight, x, row_P, token_P, 9)
    want = reference.row_sum(weight, x, token_P, row_P, 9)
    close(got, want, dtype)


def spread_weights(dtype, heads, k, n_rows, weighted) -> None:
    """Heads may choose one row; the choices of one head differ."""
    draw = torch.Generator().manual_seed(3)
    order = [torch.randperm(n_rows, generator=draw)[:k] for _ in range(5 * heads)]
    index_TK = torch.stack(order).view(5, -1)
    weight_TK = normal(*index_TK.shape, dtype=torch.float32).requires_grad_() if weighted else None
    arguments = index_TK, n_rows, k, dtype
    got = spread.spread(weight_TK, *arguments)
    want = reference.spread(weight_TK, index_TK, n_rows)
    close(got.detach(), want.detach(), dtype)
    assert got.dtype == dtype
    if weighted:
        dy = normal(*got.shape, dtype=dtype)
        d, exact = (torch.autograd.grad(y, weight_TK, dy.to(y.dtype))[0] for y in (got, want))
        close(d, exact, dtype)
    torch.library.opcheck(spread.spread_weights, (weight_TK, *arguments))


def product_keys(dtype, root, k) -> None:
    # Distinct scores, exact in float16 with their sums: no ties to break.
    order = [torch.randperm(root, generator=torch.Generator().manual_seed(s)) for s in range(8)]
    score = torch.stack(order).view(2, 2, 2, root).to(dtype)
    score[:, 1] = score[:, 1] * (1 + 1 / 64)
    best, index = product_key.best_keys(score.requires_grad_(), k)
    want, _ = reference.product_key_topk(score, k)
    first, second = index // root, index % root
    sums = score[:, 0].double().gather(2, first) + score[:, 1].double().gather(2, second)
    close(sums.detach(), want.detach(), dtype)
    close(best.detach(), want.detach(), dtype)
    dy = normal(*best.shape, dtype=dtype)
    grads = (torch.autograd.grad(y, score, dy.to(y.dtype))[0] for y in (best, sums))
    close(*grads, dtype)
    assert all(len(set(keys)) == k for keys in index.flatten(0, 1).tolist())


def opcheck(name: str) -> None:
    counts = [3, 0, 4]
    row_P, token_P, start_T = pairs([2, 0, 3], 6)
    leaf = functools.partial(normal, dtype=torch.float32)
    end = torch.tensor(counts).cumsum(0)
    x, w = leaf(7, 5).requires_grad_(), leaf(3, 5, 4).requires_grad_()
    weight, table = leaf(5).requires_grad_(), leaf(6, 8).requires_grad_()
    tokens = leaf(3, 8).requires_grad_()
    arguments = {
        "grouped_mm": (x, w, end),
        "grouped_mm_weight_gradient": (x.detach(), leaf(7, 4), w.detach(), end),
        "row_sum": (weight, table, row_P, token_P, start_T),
        "row_dot": (tokens, table, row_P, token_P, start_T, None, None, None),
        "row_gradient": (weight.detach(), tokens.detach(), row_P, token_P, 6),
    }[name]
    torch.library.opcheck(getattr(torch.ops.ffn_nas, name), arguments)


def flops() -> None:
    """torch's counter sees 2 FLOPs a multiply-add, forward and backward."""
    row_P, token_P, start_T = pairs([2, 0, 3], 6)
    x, w = torch.ones(7, 5, requires_grad=True), torch.ones(3, 5, 4, requires_grad=True)
    table, tokens = torch.ones(6, 8, requires_grad=True), torch.ones(3, 8, requires_grad=True)
    calls = (
        (lambda: grouped.grouped_mm(x, w, Loads([3, 0, 4])), 7 * 5 * 4),
        (lambda: rows.dots_of_rows(tokens, table, row_P, token_P, start_T), 5 * 8),
        (lambda: rows.sum_of_rows(tokens[:, 0][token_P], table, row_P, token_P, start_T), 5 * 8),
    )
    for call, products in calls:
        with FlopCounterMode(display=False) as counter:
            call().sum().backward()
        assert counter.get_total_flops() == 3 * 2 * products, counter.get_flop_counts()
    with FlopCounterMode(display=False) as counter:
        rows.dots_of_rows(tokens, table, row_P, token_P, start_T, known_P=torch.ones(5))
    assert counter.get_total_flops() == 0


def dispatched(dtype: torch.dtype) -> None:
    """The public functions under both backends: values and gradients agree."""
    order = RowOrder(*pairs([2, 0, 3], 6))
    inputs = (
        [normal(7, 5, dtype=dtype), normal(3, 4, 5, dtype=dtype)],
        [normal(5, dtype=dtype), normal(6, 8, dtype=dtype)],
        [normal(3, 8, dtype=dtype), normal(6, 8, dtype=dtype)],
    )
    functions = (
        lambda x, w: grouped_mm(x, w.transpose(1, 2), [3, 0, 4]),
        lambda weight, table: dispatched_sum(weight, table, order),
        lambda x, table: dispatched_dot(x, table, order),
    )
    for function, leaves in zip(functions, inputs, strict=True):
        results = []
        for backend in (Backend.TORCH, Backend.TRITON):
            leaves = [x.detach().clone().requires_grad_() for x in leaves]
            with override(backend=backend):
                y = function(*leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
            assert ("Backward" in type(y.grad_fn).__name__) and y.dtype == dtype
        for a, b in zip(*results, strict=True):
            close(a, b, dtype)


def configured(operation: str, module, cases, function, table: str = "CONFIGS") -> Iterator[Check]:
    """A check for each configuration of a kernel's table, which then has that one alone."""
    for config in getattr(module, table):
        for dtype in DTYPES:
            for case in cases:
                with_it = mock.patch.object(module, table, (config,))
                label = f"{config.label} {dtype} {case}"
                yield operation, label, with_it(functools.partial(function, dtype, *case))


def checks() -> Iterator[Check]:
    products = [(counts, gathered, not gathered) for counts in COUNTS for gathered in (False, True)]
    yield from configured("grouped product", grouped, products, product, "PRODUCT_CONFIGS")
    each = [(counts,) for counts in COUNTS]
    yield from configured("weight gradient", grouped, each, weight_gradient, "GRADIENT_CONFIGS")
    shapes = [([35, 0, 1], "silu", True, True)]
    for table in ("HIDDEN_CONFIGS", "INPUT_CONFIGS", "GRADIENT_CONFIGS"):
        yield from configured("expert products", expert_products, shapes, fused.experts, table)
    sizes = [(sizes,) for sizes in SIZES_T]
    yield from configured("row sum", rows, sizes, row_sum, "SUM_CONFIGS")
    yield from configured("row dot", rows, sizes, row_dot, "DOT_CONFIGS")
    yield from configured("row gradient", gradient, sizes, row_gradient)
    for dtype in DTYPES:
        for case in (
            (2, 3, 4, True),
            (1, 7, 5000, True),
            (3, 1, 1, True),
            (1, 5, 9, False),
            (2, 3, 4, False),
        ):
            yield "spread", f"{dtype} {case}", functools.partial(spread_weights, dtype, *case)
    roots = [(5, 3), (3, 9), (1, 1), (17, 5)]
    yield from configured("product key", product_key, roots, product_keys)
    shapes = [(a, s) for a in gated.ACTIVATIONS for s in ((3, 700), (1, 1))]
    yield from configured("gated activation", gated, shapes, fused.gated_activation)
    rms_norm.PARTIAL_SUMS = 4  # so that a program has several rows
    rms_norm.BLOCK = 128  # so that a program takes two rows of 64 at a time, and one of 300
    norms = [((9, 300),), ((11, 37),), ((1, 64),)]
    yield from configured("RMSNorm", rms_norm, norms, fused.norm)
    sums = [((9, 70), added, wide) for added in (True, False) for wide in (True, False)]
    yield from configured("residual norm", rms_norm, sums, fused.residual)
    yield from configured("cross-entropy", cross_entropy, [(7, 5000), (1, 3)], fused.cross)
    for name in ("grouped_mm", "grouped_mm_weight_gradient", "row_sum", "row_dot", "row_gradient"):
        yield "opcheck", name, functools.partial(opcheck, name)
    yield "flops", "", flops
    for dtype in DTYPES:
        yield "dispatch", str(dtype), functools.partial(dispatched, dtype)
    yield from fused.checks()
    yield from router.checks()


if __name__ == "__main__":
    tell(checks())
