"""The fused operations in Triton's interpreter: kernels, operators, and whole models of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import reference
import torch
from interpreter_tools import DTYPES, Operators, agree, close, normal
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_space.backbone import Backbone
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.kernels import selfcheck, selfcheck_problems
from workers.kernels.api.cross_entropy import linear_cross_entropy
from workers.kernels.api.expert_ffn import expert_ffn
from workers.kernels.api.residual_norm import residual_norm as dispatched_sum
from workers.kernels.api.rms_norm import rms_norm as dispatched_norm
from workers.kernels.api.rotary import normed_heads
from workers.kernels.pairs import Operands, Pairs
from workers.kernels.prepared import made_of
from workers.kernels.settings import Backend, override
from workers.kernels.triton import cross_entropy, gated, residual_norm, rms_norm, rotary
from workers.kernels.triton.expert_ffn import expert_ffn as routed_ffn
from workers.model import ProxyLM, rotary_table

TOKENS, WIDTH, UNITS, VOCABULARY = 6, 10, 8, 23
ACTIVATIONS = ("gelu", "relu", "silu")


def gated_activation(dtype, activation, shape) -> None:
    gate, up, dh = (normal(*shape, dtype=dtype, seed=seed) for seed in range(3))
    h = gated.gated_activation(gate, up, activation)
    grads = gated.gated_gradients(gate, up, dh, activation)
    slow = functools.partial(reference.gated_activation, activation=activation)
    agree([h, *grads], slow, [gate, up], dh, dtype)


def norm(dtype, shape) -> None:
    x, dy = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    w = normal(shape[1], dtype=dtype, seed=2)
    y, scale = rms_norm.rms_norm_rows(x, w, 1e-5)
    grads = rms_norm.rms_norm_rows_backward(dy, x, w, scale)
    agree([y, *grads], functools.partial(reference.rms_norm, eps=1e-5), [x, w], dy, dtype)


def residual(dtype, shape, added, wide) -> None:
    """A sum and its norm, read in one dtype or two, and the gradients of all in parts of two."""
    narrow = torch.float16 if dtype == torch.float32 and wide else dtype
    x, w = normal(*shape, dtype=dtype).requires_grad_(), normal(shape[1], dtype=dtype, seed=2)
    y = normal(*shape, dtype=narrow, seed=1).requires_grad_() if added else None
    gain = w.expand(3, -1).clone().requires_grad_()
    with made_of([w], [gain]):
        found = residual_norm.residual_norm(x, y, w, 1e-5, wide, narrow)
    found = found if wide else found[::2]
    dys = [normal(*shape, dtype=f.dtype, seed=seed) for seed, f in enumerate(found, 5)]
    leaves = [x, *([y] if added else []), gain]
    grads = torch.autograd.grad(found, leaves, dys)
    assert [g.dtype for g in grads] == [leaf.dtype for leaf in leaves]
    assert [f.dtype for f in found] == [dtype, *([dtype] if wide else []), narrow]

    def slow(x, *rest):
        sum_TD = x + rest[0] if added else x
        normed_TD = reference.rms_norm(sum_TD, rest[-1], eps=1e-5)
        return torch.stack([sum_TD, *[normed_TD] * (len(found) - 1)])

    got, dy = (torch.stack([t.double() for t in ts]) for ts in (found, dys))
    loose = torch.float16 if narrow != dtype else dtype
    grads = [*grads[:-1], grads[-1].sum(0)]
    agree([got, *grads], slow, [*leaves[:-1], w], dy, loose)


def cross(dtype, n_tokens, vocabulary) -> None:
    target = torch.randint(vocabulary, (n_tokens,), generator=torch.Generator().manual_seed(4))
    logits = 3 * normal(n_tokens, vocabulary, dtype=dtype)
    gradients = logits.clone()
    losses = cross_entropy.cross_entropy_in_place(gradients, target)

    def slow(logits):
        return -torch.log_softmax(logits, dim=1)[torch.arange(n_tokens), target]

    agree([losses, gradients], slow, [logits], torch.ones(n_tokens), dtype)


def chunked_cross(dtype, chunk) -> None:
    target = torch.randint(VOCABULARY, (7,), generator=torch.Generator().manual_seed(4))
    x, w = normal(7, 9, dtype=dtype), normal(VOCABULARY, 9, dtype=dtype, seed=1)
    x, w = x.requires_grad_(), w.requires_grad_()
    loss = cross_entropy.linear_cross_entropy(x, w, target, chunk=chunk)
    grads = torch.autograd.grad(3 * loss, (x, w))
    slow = functools.partial(reference.linear_cross_entropy, target_T=target)
    agree([loss, *(g / 3 for g in grads)], slow, [x, w], torch.ones(()), dtype)
    with torch.no_grad():
        close(cross_entropy.linear_cross_entropy(x, w, target, chunk=chunk), loss, dtype)


def routed(counts: list[int]) -> Pairs:
    """Tokens drawn at random: one may read an expert twice, or none."""
    generator = torch.Generator().manual_seed(6)
    return Pairs(torch.randint(TOKENS, (sum(counts),), generator=generator), counts)


def expert_tensors(pairs: Pairs, dtype: torch.dtype) -> list[torch.Tensor]:
    """x, keys, gates, values, weight."""
    shape = (len(pairs.counts), UNITS, WIDTH)
    matrices = [normal(*shape, dtype=dtype, seed=seed) for seed in (1, 2, 3)]
    weight = normal(sum(pairs.counts), 1, dtype=dtype, seed=4)
    tensors = [normal(TOKENS, WIDTH, dtype=dtype), *matrices, weight]
    return [x.requires_grad_() for x in tensors]


def experts(dtype, counts, activation, gates, weights) -> None:
    """Against the pair by pair form, with what `watch` is told."""
    pairs = routed(counts)
    tensors = expert_tensors(pairs, dtype)
    given = [True, True, gates, True, weights]
    x, keys, gate, values, weight = (t if g else None for t, g in zip(tensors, given, strict=True))
    seen = []
    y = routed_ffn(Operands(x, keys, gate, values, weight), pairs, activation, seen.append)
    leaves = [t for t, g in zip(tensors, given, strict=True) if g]
    dy = normal(*y.shape, dtype=dtype, seed=9)
    grads = torch.autograd.grad(y, leaves, dy)

    def slow(x, keys, *rest):
        rest = list(rest)
        gate = rest.pop(0) if gates else None
        values, weight_P = rest[0], rest[1].flatten() if weights else None
        return reference.expert_ffn(
            x, keys, gate, values, weight_P, pairs.token_P, counts, activation
        )

    agree([y, *grads], slow, leaves, dy, dtype)
    (h,) = seen
    assert h.shape == (sum(counts), UNITS) and not h.requires_grad


def opcheck(name: str) -> None:
    assert rotary  # whose operators are there once it is imported
    pairs = routed([3, 0, 4])
    x, keys, gates, values, weight = expert_tensors(pairs, torch.float32)
    order = torch.argsort(pairs.token_P, stable=True)
    start = torch.searchsorted(pairs.token_P[order], torch.arange(TOKENS + 1))
    reads = (pairs.token_P, torch.tensor(pairs.counts).cumsum(0), order, start, "silu")
    last = [w.detach()[:1].clone() for w in (keys, gates, values)]
    alone, both = (*reads, None, None, None), (*reads, *(w.requires_grad_() for w in last))
    gated_inputs = (x, keys, gates, values, weight.detach().flatten().requires_grad_(), *alone)
    plain_inputs = (x, keys, None, values, None, *alone)
    joint_inputs = (
        x,
        *(w.detach()[:2].requires_grad_() for w in (keys, gates, values)),
        *gated_inputs[4:5],
        *both,
    )
    made = normal(7, UNITS, dtype=torch.float32)
    whole = [t.detach() if isinstance(t, torch.Tensor) else t for t in gated_inputs]
    row, scale = normal(WIDTH, dtype=torch.float32).requires_grad_(), torch.ones(TOKENS)
    target = torch.arange(TOKENS)
    head = normal(VOCABULARY, WIDTH, dtype=torch.float32).requires_grad_()
    unkept = (x.detach(), head.detach(), target, 4, False)  # nothing to check gradients of
    qkv = normal(2, 3, 3, 2, 4, dtype=torch.float32)
    gains = [normal(4, dtype=torch.float32, seed=seed) for seed in (1, 2)]
    angles, heads = rotary_table(torch.arange(3)[None], 4, 100.0), qkv[:, :, 0].contiguous()
    cases = {
        "expert_ffn": [gated_inputs, plain_inputs, joint_inputs],
        "expert_ffn_backward": [(x.detach(), made, made.clone(), *whole)],
        "rms_norm": [(x, row, 1e-6)],
        "rms_norm_backward": [(x.detach(), x.detach().clone(), row.detach(), scale)],
        "linear_cross_entropy": [(x, head, target, 4, True), unkept],
        "residual_norm": [
            (x.detach(), x.detach().half(), row.detach(), 1e-6, True, torch.float16),
            (x.detach(), None, row.detach(), 1e-6, True, torch.float32),
        ],
        "residual_norm_backward": [
            (*[x.detach().clone() for _ in range(4)], row.detach(), scale, torch.float16, 3),
            (x.detach(), None, None, x.detach().clone(), row.detach(), scale, x.dtype, 0),
        ],
        "normed_heads": [(qkv, *gains, *angles, 1e-6)],
        "normed_heads_backward": [
            (*[heads] * 3, qkv, *gains, *angles, 1e-6, parts) for parts in (0, 3)
        ],
        "product_key": [(normal(2, 2, TOKENS, 5, dtype=torch.float32).requires_grad_(), 3)],
        "product_key_backward": [
            (torch.ones(2, TOKENS, 3), torch.arange(3).expand(2, TOKENS, 3), 5)
        ],
    }
    for arguments in cases[name]:
        torch.library.opcheck(getattr(torch.ops.ffn_nas, name), arguments)


@override(backend=Backend.TRITON)
def flops() -> None:
    """Two FLOPs a multiply-add: three products of each matrix, forward and backward."""
    pairs = routed([3, 0, 4])
    x, keys, gates, values, weight = expert_tensors(pairs, torch.float32)
    target, head = torch.arange(TOKENS), torch.ones(VOCABULARY, WIDTH, requires_grad=True)
    calls = (
        (lambda: expert_ffn(x, keys, gates, values, pairs, weight, "silu"), 3 * 7 * UNITS),
        (lambda: expert_ffn(x, keys, None, values, pairs, None, "gelu"), 2 * 7 * UNITS),
        (lambda: cross_entropy.linear_cross_entropy(x, head, target), TOKENS * VOCABULARY),
    )
    for call, columns in calls:
        with FlopCounterMode(display=False) as counter:
            call().sum().backward()
        assert counter.get_total_flops() == 3 * 2 * columns * WIDTH, counter.get_flop_counts()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        assert counter.get_total_flops() == 2 * columns * WIDTH, counter.get_flop_counts()


def functions(dtype: torch.dtype):
    """Operators that must run, the public function and its leaves."""
    pairs = routed([3, 0, 4])
    tensors = expert_tensors(pairs, dtype)
    x, keys, _, values, _ = tensors
    angles = rotary_table(torch.arange(5)[None], WIDTH, 100.0)
    heads, row = normal(2, 5, 3, WIDTH, dtype=dtype), normal(WIDTH, dtype=dtype, seed=1)
    qkv = normal(2, 5, 3, 2, WIDTH, dtype=dtype)
    head, target = normal(VOCABULARY, WIDTH, dtype=dtype, seed=1), torch.arange(TOKENS)

    def plain(x, keys, values):
        return expert_ffn(x, keys, None, values, pairs, None, "relu")

    return [
        ("expert_ffn", lambda *t: expert_ffn(*t[:4], pairs, t[4], "gelu"), tensors),
        ("expert_ffn", plain, [x, keys, values]),
        ("rms_norm", dispatched_norm, [heads.transpose(1, 2), row]),
        (
            "normed_heads",
            lambda x, q, k: torch.stack(normed_heads(x, q, k, *angles)),
            [qkv, row, row + 1],
        ),
        (
            "residual_norm",
            lambda x, y, w: torch.stack(dispatched_sum(x, y, w)),
            [heads, heads + 1, row],
        ),
        ("linear_cross_entropy", lambda x, w: linear_cross_entropy(x, w, target), [x, head]),
    ]


def dispatched(dtype: torch.dtype) -> None:
    """The public functions under both backends: values and gradients agree."""
    for name, function, leaves in functions(dtype):
        results = []
        for backend in (Backend.TORCH, Backend.TRITON):
            leaves = [x.detach().clone().requires_grad_() for x in leaves]
            with override(backend=backend), Operators() as ran:
                y = function(*leaves)
                grads = torch.autograd.grad(y.square().sum(), leaves)
            results.append([y, *grads])
            expected = {name, f"{name}_backward"} - {"linear_cross_entropy_backward"}
            assert ran.names == (expected if backend is Backend.TRITON else set()), ran.names
        for a, b in zip(*results, strict=True):
            close(a, b, dtype)


def model(spec: FFNSpec, operators: set[str]) -> None:
    """A training step's loss and gradients are the same under both backends."""
    backbone = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=VOCABULARY, seq_len=6)
    ids, targets = torch.randint(VOCABULARY, (2, 2, 6), generator=torch.Generator().manual_seed(1))
    results = []
    for backend in (Backend.TORCH, Backend.TRITON):
        torch.manual_seed(0)
        proxy = ProxyLM(spec, backbone)
        for values in proxy.parameters():
            if not values.any():
                nn.init.normal_(values, std=0.3)  # else nothing behind them has a gradient
        proxy.set_token_counts(torch.arange(VOCABULARY))
        with override(backend=backend), Operators() as ran:
            out = proxy(ids)
            hidden_TD = out.hidden_NLD.flatten(0, 1)
            loss = linear_cross_entropy(hidden_TD, proxy.embed.weight, targets.flatten())
            (loss if out.aux_loss is None else loss + out.aux_loss).backward()
        results.append([loss, *(x.grad for x in proxy.parameters() if x.grad is not None)])
        backward = {f"{name}_backward" for name in operators & {"expert_ffn", "residual_norm"}}
        wanted = operators | backward if backend is Backend.TRITON else set()
        assert wanted <= ran.names and bool(wanted) == bool(ran.names), ran.names
    for a, b in zip(*results, strict=True):
        close(a, b.to_dense() if b.is_sparse else b, torch.float32)


BASE = {"residual_norm", "linear_cross_entropy"}
WIDE = {"d_ff": 32, "expert_width": 8, "gated": True, "activation": "silu"}
MODELS = (
    (FFNSpec(selection=TopK(k=2, balance_weight=0.1), **WIDE), BASE | {"expert_ffn"}),
    (FFNSpec(selection=Hash(k=2), **WIDE | {"gated": False}), BASE | {"expert_ffn"}),
    (FFNSpec(selection=ReLURouting(l1_start=0.1), **WIDE), BASE | {"expert_ffn"}),
    (
        FFNSpec(d_ff=16, expert_width=1, selection=ProductKey(heads=2, k=2, key_dim=4)),
        BASE | {"product_key", "row_dot", "row_sum"},
    ),
    (
        FFNSpec(d_ff=72, expert_width=8, selection=ProductKey(heads=2, k=2, key_dim=4)),
        BASE | {"product_key", "expert_ffn"},
    ),
)


def self_check() -> None:
    """The check that a GPU must pass is passed here, but in bfloat16."""
    selfcheck.TOLERANCE.pop(torch.bfloat16, None)
    # The interpreter is slow.
    asked = selfcheck_problems
    asked.COUNTS, asked.TOKENS, asked.VOCABULARY = [3, 0, 1, 5], 7, VOCABULARY
    asked.INNER, asked.OUTER, asked.WIDTH = 20, 9, 70
    assert selfcheck.first_fault(torch.device("cpu")) == ""


def checks() -> Iterator[tuple[str, str, functools.partial]]:
    """Operation, case and check; the kernels' configurations are the caller's."""
    for dtype in DTYPES:
        yield "dispatch, fused", str(dtype), functools.partial(dispatched, dtype)
        for chunk in (3, 7):
            case = f"{dtype} chunks of {chunk}"
            yield "linear cross-entropy", case, functools.partial(chunked_cross, dtype, chunk)
        for counts in ([3, 0, 4], [0, 0]):
            for n, activation in enumerate(ACTIVATIONS):
                given = (counts, activation, n != 1, n != 2)
                yield "expert FFN", f"{dtype} {given}", functools.partial(experts, dtype, *given)
    for name in (
        "expert_ffn",
        "expert_ffn_backward",
        "rms_norm",
        "rms_norm_backward",
        "residual_norm",
        "residual_norm_backward",
        "linear_cross_entropy",
        "normed_heads",
        "normed_heads_backward",
        "product_key",
        "product_key_backward",
    ):
        yield "opcheck, fused", name, functools.partial(opcheck, name)
    yield "flops, fused", "", functools.partial(flops)
    for spec, operators in MODELS:
        yield "model", spec.label, functools.partial(model, spec, operators)
    yield "self-check", "", functools.partial(self_check)
