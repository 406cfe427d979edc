"""Experts with gates on their outputs in Triton's interpreter: kernels and operators.

Run in a process of its own with TRITON_INTERPRET=1: prints what `interpreter_checks` does.

T tokens, D model width, B experts, G units of an expert.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from unittest import mock

import reference
import torch
from interpreter_tools import DTYPES, Operators, agree, close, normal, tell
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels.api.output_gate import output_gated_ffn
from workers.kernels.pairs import Pairs
from workers.kernels.settings import Backend, override
from workers.kernels.triton import expert_products as products
from workers.kernels.triton import grouped
from workers.kernels.triton import output_gate_units as units
from workers.kernels.triton import output_gate_vectors as vectors

T, D, B, G = 11, 10, 3, 9
COUNTS = [9, 0, 3]
# Tokens, model width, units of an expert, and the pairs of each expert, None where all read all.
WAYS = {
    "all": (T, D, G, None),
    "all, wide": (3, 40, 70, None),
    "one token": (1, D, G, None),
    "no token": (0, D, G, None),
    "pairs": (T, D, G, COUNTS),
    "pairs, wide": (3, 40, 70, [1, 0, 2]),
    "no pair": (T, D, G, [0, 0, 0]),
}


def some_pairs(n_tokens: int, counts: list[int] | None) -> Pairs:
    """Tokens drawn at random: one may read an expert twice, or none."""
    if counts is None:
        return Pairs(None, [n_tokens] * B)
    generator = torch.Generator().manual_seed(6)
    return Pairs(torch.randint(n_tokens, (sum(counts),), generator=generator), counts)


def leaves_of(
    pairs: Pairs, n_tokens: int, inner: int, width: int, dtype: torch.dtype
) -> list[Tensor]:
    """x, keys, gates, values, output gates of another dtype, and weights."""
    shape = (B, width, inner)
    matrices = [(normal(*shape, dtype=dtype, seed=s) / inner**0.5).to(dtype) for s in (1, 2, 3)]
    gate_BD = normal(B, inner, dtype=torch.float32, seed=4)
    rows = (n_tokens, B) if pairs.token_P is None else (sum(pairs.counts), 1)
    weight = normal(*rows, dtype=torch.float32, seed=5)
    return [normal(n_tokens, inner, dtype=dtype), *matrices, gate_BD, weight]


def read(pairs: Pairs, n_tokens: int, weight: Tensor | None):
    """Token, expert and weight of each pair."""
    if pairs.token_P is None:
        for t in range(n_tokens):
            for b in range(B):
                yield t, b, 1.0 if weight is None else weight[t, b]
        return
    expert_P = [expert for expert, count in enumerate(pairs.counts) for _ in range(count)]
    for p, (t, b) in enumerate(zip(pairs.token_P.tolist(), expert_P, strict=True)):
        yield t, b, 1.0 if weight is None else weight[p, 0]


@contextlib.contextmanager
def small() -> Iterator[None]:
    """A program has several rows at a time, some several times, and an expert several programs; and
    the products of pairs, which other checks run in all their ways, have small tiles."""
    tables = [(grouped, "PRODUCT_CONFIGS"), (products, "HIDDEN_CONFIGS")]
    tables.append((products, "INPUT_CONFIGS"))
    with (
        mock.patch.object(units, "BLOCK", 64),
        mock.patch.object(units, "PROGRAMS", 6),
        contextlib.ExitStack() as stack,
    ):
        for module, table in tables:
            last = getattr(module, table)[-1:]
            stack.enter_context(mock.patch.object(module, table, last))
        yield


def whole(dtype, way: str, activation: str, gated: bool, weighted: bool) -> None:
    """Value and gradients against the slow form, with what `watch` is told."""
    n_tokens, inner, width, counts = WAYS[way]
    pairs = some_pairs(n_tokens, counts)
    every = [x.requires_grad_() for x in leaves_of(pairs, n_tokens, inner, width, dtype)]
    given = [True, True, gated, True, True, weighted]
    x, keys, gates, values, gate, weight = (
        t if g else None for t, g in zip(every, given, strict=True)
    )
    seen: list[Tensor] = []
    with small(), override(backend=Backend.TRITON):
        matrices = keys, gates, values, gate
        y = output_gated_ffn(x, *matrices, pairs, weight, activation, seen.append)
        leaves = [t for t, g in zip(every, given, strict=True) if g]
        dy = normal(*y.shape, dtype=dtype, seed=9)
        grads = torch.autograd.grad(y, leaves, dy)
    assert [g.dtype for g in grads] == [leaf.dtype for leaf in leaves]

    def slow(*tensors):
        rest = iter(tensors)
        x, keys, gates, values, gate, weight = (next(rest) if g else None for g in given)
        pairs_read = list(read(pairs, n_tokens, weight))
        return reference.output_gated_ffn(x, keys, gates, values, gate, pairs_read, activation)

    agree([y, *grads], slow, leaves, dy, dtype)
    (h,) = seen
    rows = (n_tokens, B * width) if counts is None else (sum(counts), width)
    assert h.shape == rows and not h.requires_grad


def dispatched() -> None:
    """The public function under both backends, and the operators that run. In float32 alone: in 16
    bits torch's form rounds each expert's output, and is off by more than this one."""
    for counts in (None, COUNTS):
        pairs, results = some_pairs(T, counts), []
        name = "output_gated_ffn" if counts is None else "output_gated_pairs"
        for backend in (Backend.TORCH, Backend.TRITON):
            leaves = leaves_of(pairs, T, D, G, torch.float32)
            leaves = [x.requires_grad_() for x in leaves]
            with override(backend=backend), Operators() as ran:
                y = output_gated_ffn(*leaves[:5], pairs, leaves[5], "gelu")
                results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
            expected = {name, f"{name}_backward"} if backend is Backend.TRITON else set()
            assert ran.names == expected, ran.names
        for a, b in zip(*results, strict=True):
            close(a, b, torch.float32)


def opcheck(name: str) -> None:
    routed, few, counts = name.startswith("output_gated_pairs"), 3, [3, 0, 1]
    pairs = some_pairs(few, counts if routed else None)
    x, keys, gates, values, gate, weight = leaves_of(pairs, few, D, G, torch.float32)
    reads: tuple[Tensor, ...] = ()
    n_rows, n_made = few, 2 * B * G
    if routed:
        end_B = torch.tensor(counts).cumsum(0)
        reads, n_rows, n_made = (pairs.token_P, end_B, *pairs.by_token(few)), sum(counts), G
        weight = weight.flatten()
    u, pre = normal(B, G, dtype=torch.float32), normal(n_rows, n_made, dtype=torch.float32, seed=7)
    dy = normal(few, D, dtype=torch.float32, seed=8)
    if name.endswith("backward"):
        both = torch.cat((keys, gates)).flatten(0, 1)
        cases = [(dy, pre, both, u, x, values, gate, weight, "silu")]
        cases += [(dy, pre[:, : B * G].clone(), both[: B * G], u, x, values, gate, None, "relu")]
        if routed:
            given = x, keys, gates, values, gate, weight, "silu"
            cases = [(dy, pre, pre.clone(), u, *reads, *given)]
    else:
        given = [t.requires_grad_() for t in (x, keys, gates, values, gate, weight)]
        plain = x, keys, None, values, gate, None
        cases = [(*given, *reads, "silu"), (*plain, *reads, "gelu")]
    for arguments in cases:
        torch.library.opcheck(getattr(torch.ops.ffn_nas, name), arguments)


@override(backend=Backend.TRITON)
def flops() -> None:
    """Two FLOPs a multiply-add of every matrix and of the gates, thrice with the gradients."""
    for counts in (None, COUNTS):
        pairs = some_pairs(T, counts)
        n_pairs = sum(pairs.counts)
        every = leaves_of(pairs, T, D, G, torch.float32)
        x, keys, gates, values, gate, weight = (t.requires_grad_() for t in every)
        for given, n_matrices in ((gates, 3), (None, 2)):
            forward = 2 * n_pairs * D * (n_matrices * G + 1)
            with FlopCounterMode(display=False) as counter:
                y = output_gated_ffn(x, keys, given, values, gate, pairs, weight, "silu")
            assert counter.get_total_flops() == forward, counter.get_flop_counts()
            with FlopCounterMode(display=False) as counter:
                y.sum().backward()
            assert counter.get_total_flops() == 2 * forward, counter.get_flop_counts()


def configured() -> Iterator[tuple[str, str, functools.partial]]:
    """A check for each configuration of the kernels' tables, which then have that one alone."""
    tables = [
        (units, "CONFIGS", ("all", "pairs")),
        (units, "WIDE_CONFIGS", ("all, wide",)),
        (vectors, "CONFIGS", ("all, wide", "pairs")),
        (vectors, "GRADIENT_CONFIGS", ("all, wide", "pairs, wide")),
    ]
    for module, table, ways in tables:
        for config in getattr(module, table):
            for dtype in DTYPES:
                for way in ways:
                    with_it = mock.patch.object(module, table, (config,))
                    check = with_it(functools.partial(whole, dtype, way, "silu", True, True))
                    yield "output gates, kernels", f"{table} {config.label} {dtype} {way}", check


def checks() -> Iterator[tuple[str, str, functools.partial]]:
    """Operation, case and check."""
    yield from configured()
    for n, way in enumerate(("all", "one token", "no token", "pairs", "no pair")):
        activation, gated, weighted = ("gelu", "relu", "silu")[n % 3], n % 2 == 0, n != 3
        cases = (activation, gated, weighted), (activation, not gated, not weighted)
        for dtype, case in zip(DTYPES, cases, strict=True):
            check = functools.partial(whole, dtype, way, *case)
            yield "output gates", f"{dtype} {way} {case}", check
    yield "output gates, dispatch", "", functools.partial(dispatched)
    for name in ("output_gated_ffn", "output_gated_pairs"):
        for each in (name, f"{name}_backward"):
            yield "output gates, opcheck", each, functools.partial(opcheck, each)
    yield "output gates, flops", "", functools.partial(flops)


if __name__ == "__main__":
    tell(checks())
