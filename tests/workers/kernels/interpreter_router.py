"""A router's choice and the order of pairs in Triton's interpreter: kernels and operators."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from unittest import mock

import reference
import torch
from interpreter_tools import close, normal

from workers.kernels.choice import Rule, Threshold
from workers.kernels.pairs import Pairs
from workers.kernels.triton import choice, gates, pair_order
from workers.kernels.triton import relu_choice as relu

OPERATORS = (
    *("expert_choice", "expert_choice_backward", "pair_order", "relu_choice"),
    *("relu_choice_backward", "threshold_gates", "threshold_gates_backward"),
)
LOSSES = {"balance": 0.3, "z": 0.2, "entropy": 0.5, "counts": True}
# Tokens, experts and choices: one token, k = B, more tokens than a program has at a time.
SIZES = ((1, 5, 2), (7, 4, 4), (45, 17, 1))
RULES = (
    {"softmax": True},
    {"softmax": True, "normalize": True, **LOSSES},
    {"softmax": False, **LOSSES, "always": 2},
    {"softmax": False, "normalize": True},
)


def small():
    """Few programs and blocks, so that each has several blocks of tokens."""
    return mock.patch.multiple(pair_order, PROGRAMS=2, BLOCK=128)


def same_order(pairs: Pairs, index: list[list[int]], n_experts: int) -> None:
    """The pairs by expert, token and choice, and the way from a token to them."""
    want = reference.order(index, n_experts)
    place = {(t, k): p for p, (_, t, k) in enumerate(want)}
    assert pairs.token_P is not None
    assert pairs.token_P.tolist() == [t for _, t, _ in want]
    assert pairs.counts == [sum(e == b for e, _, _ in want) for b in range(n_experts)]
    order_P, start_T1 = pairs.by_token(len(index))
    flat = [(t, k) for t, row in enumerate(index) for k in range(len(row))]
    assert order_P.tolist() == [place[at] for at in flat]
    assert start_T1.tolist() == [t * len(index[0]) for t in range(len(index) + 1)]


@small()
def chosen(rule: Rule, n_tokens: int, n_experts: int, biased: bool) -> None:
    """Choice, weights, loads and losses, and the gradient in the logits."""
    z = normal(n_tokens, n_experts, dtype=torch.float32).requires_grad_()
    bias = normal(n_experts, dtype=torch.float32, seed=1) / 4 if biased else None
    got = choice.expert_choice(z, bias, rule, None)
    p = z.softmax(1) if rule.softmax else z.sigmoid()
    index = (p.detach() + (0.0 if bias is None else bias)).topk(rule.k).indices.tolist()
    last = [n_experts + n for n in range(rule.always)]
    same_order(got.pairs, [row + last for row in index], n_experts + rule.always)
    exact = z.detach().double().requires_grad_()
    weights, loss = reference.expert_choice(exact, bias, index, rule)
    ones = torch.ones(n_tokens * rule.always)  # they are the last, with weight 1
    weights = torch.cat((weights, ones.double()))
    close(got.weight_P.detach(), weights.detach(), torch.float32)
    assert (got.loss is None) == (not rule.has_loss)
    assert (got.load_B is None) == (not rule.counts)
    if got.load_B is not None:
        assert got.load_B.tolist() == got.pairs.counts[:n_experts]
    dy = normal(len(weights), dtype=torch.float32, seed=2)
    total, want = got.weight_P @ dy, weights @ dy.double()
    if got.loss is not None:
        close(got.loss.detach(), loss.detach(), torch.float32)
        total, want = total + 1.7 * got.loss, want + 1.7 * loss
        # The loss alone has a gradient, too.
        alone = torch.autograd.grad(got.loss, z, retain_graph=True)[0]
        close(alone, torch.autograd.grad(loss, exact, retain_graph=True)[0], torch.float32)
    close(torch.autograd.grad(total, z)[0], torch.autograd.grad(want, exact)[0], torch.float32)


@small()
def of_equal_scores() -> None:
    """The first of equal ones, each once; and a token whose scores are no numbers names experts."""
    z = torch.zeros(3, 6)
    z[2] = float("nan")
    found = choice.Chosen(*choice.choice(z, None, 4, 0, True, False, False, 0.0, 0.0, 0.0))
    assert found.index_TK[:2].tolist() == [[0, 1, 2, 3]] * 2
    assert found.index_TK[2].ge(0).all() and found.index_TK[2].lt(6).all()
    assert sorted(found.place_P.tolist()) == list(range(12))


@small()
def ordered(n_tokens: int, n_experts: int, k: int, weighted: bool) -> None:
    """Of experts that a token may name twice."""
    drawn = torch.Generator().manual_seed(3)
    index = torch.randint(n_experts, (k, n_tokens), generator=drawn).t()
    weight = normal(n_tokens, k, dtype=torch.float32).requires_grad_() if weighted else None
    pairs, weight_P = pair_order.order_pairs(index, weight, n_experts)
    same_order(pairs, index.tolist(), n_experts)
    if weight is None or weight_P is None:
        assert weight is weight_P
        return
    want = [weight[t, j] for _, t, j in reference.order(index.tolist(), n_experts)]
    assert torch.equal(weight_P, torch.stack(want))
    dy = normal(len(want), dtype=torch.float32, seed=1)
    grads = (torch.autograd.grad(y @ dy, weight)[0] for y in (weight_P, torch.stack(want)))
    assert torch.equal(*grads)


@small()
def opened(n_tokens: int, n_experts: int) -> None:
    """The gates above zero by expert and by token, and the penalty."""
    z = normal(n_tokens, n_experts, dtype=torch.float32)
    z[n_tokens // 2] = -1.0  # a token of no expert
    z.requires_grad_()
    coefficient = torch.tensor(0.7)
    got = relu.relu_choice(z, coefficient)
    pairs = [(b, t) for b in range(n_experts) for t in range(n_tokens) if z[t, b] > 0]
    assert got.pairs.token_P is not None and got.loss is not None
    assert got.pairs.token_P[: len(pairs)].tolist() == [t for _, t in pairs]
    assert got.pairs.counts == [sum(e == b for e, _ in pairs) for b in range(n_experts)]
    order_P, start_T1 = got.pairs.by_token(n_tokens)
    for t in range(n_tokens):
        places = order_P[start_T1[t] : start_T1[t + 1]].tolist()
        assert places == [p for p, (_, token) in enumerate(pairs) if token == t]
    exact = z.detach().double().requires_grad_()
    weights = [exact[t, b] for b, t in pairs]
    loss = 0.7 * exact.clamp_min(0).mean()
    close(got.loss.detach(), loss.detach(), torch.float32)
    dy = normal(z.numel(), dtype=torch.float32, seed=1)
    dy[len(pairs) :] = 0.0
    want = sum((w * d for w, d in zip(weights, dy.double(), strict=False)), 1.7 * loss)
    given = [dy, torch.tensor(1.7)]
    (dz,) = torch.autograd.grad([got.weight_P, got.loss], z, given, retain_graph=True)
    close(dz, torch.autograd.grad(want, exact, retain_graph=True)[0], torch.float32)
    close(torch.autograd.grad(got.loss, z)[0], torch.autograd.grad(loss, exact)[0], torch.float32)
    kept = got.weight_P[: len(pairs)].tolist()
    assert kept == [float(exact[t, b].detach()) for b, t in pairs]


def gated(rule: Threshold, n_tokens: int, n_experts: int) -> None:
    """Weights, loss and their straight-through gradients."""
    z = normal(n_tokens, n_experts, dtype=torch.float32)
    z[n_tokens // 2] = torch.linspace(-2, -1, n_experts)  # all shut
    z.requires_grad_()
    weight, loss = gates.threshold_gates(z, rule)
    p = 1 / (1 + torch.exp(-z.detach().double()))
    want, slope = torch.zeros_like(p), torch.ones_like(p)
    for t, row in enumerate(p):
        read = [b for b in range(n_experts) if row[b] > rule.tau] or [int(row.argmax())]
        slope[t] = n_experts / len(read) if rule.renormalize else 1.0
        want[t, read] = row[read] * slope[t, read]
    close(weight.detach(), want, torch.float32)
    dy = normal(n_tokens, n_experts, dtype=torch.float32, seed=1)
    (dz,) = torch.autograd.grad(weight, z, dy, retain_graph=True)
    close(dz, dy * slope * p * (1 - p), torch.float32)
    assert (loss is None) == (not rule.sparsity)
    if loss is not None:
        close(loss.detach(), rule.sparsity * (p * (p > rule.tau)).mean(), torch.float32)
        slope = rule.sparsity * p * (1 - p) / p.numel()
        close(torch.autograd.grad(2 * loss, z)[0], 2 * slope, torch.float32)


def opcheck(name: str) -> None:
    z = normal(6, 5, dtype=torch.float32)
    index, place = torch.arange(12).view(6, 2).int() % 5, torch.arange(12)
    cases: dict[str, list[tuple[object, ...]]] = {
        "expert_choice": [
            (z.clone().requires_grad_(), torch.ones(5), 2, 1, True, True, True, 0.1, 0.1, 0.1),
            (z.clone().requires_grad_(), None, 2, 0, False, False, False, 0.1, 0.0, 0.0),
        ],
        "expert_choice_backward": [
            (torch.ones(12), torch.ones(()), z, index, place, torch.ones(10), 0, True, True, 0.1),
            (None, torch.ones(()), z, index, place, torch.ones(10), 0, False, False, 0.0),
        ],
        "pair_order": [(index.long(), 5)],
        # All gates are open: what lies beyond the last pair is not written.
        "relu_choice": [(z.abs().requires_grad_(), torch.ones(()))],
        "relu_choice_backward": [
            (torch.ones(30), torch.ones(()), z, torch.arange(30).int().view(6, 5), torch.ones(()))
        ],
        "threshold_gates": [
            (z.clone().requires_grad_(), 0.5, True, 0.1),
            (z.clone().requires_grad_(), 0.5, False, 0.0),
        ],
        "threshold_gates_backward": [(torch.ones(6, 5), None, z, 0.5, True, 0.1)],
    }
    for arguments in cases[name]:
        torch.library.opcheck(getattr(torch.ops.ffn_nas, name), arguments)


def checks() -> Iterator[tuple[str, str, functools.partial]]:
    """Operation, case and check."""
    for n_tokens, n_experts, k in SIZES:
        for biased, given in enumerate(RULES):
            rule = Rule(k, **given)
            if rule.normalize and k == 1:
                continue
            case = f"{n_tokens} tokens, {n_experts} experts, {rule}"
            check = functools.partial(chosen, rule, n_tokens, n_experts, biased % 2 == 1)
            yield "expert choice", case, check
        for weighted in (False, True):
            case = f"{n_tokens} tokens, {n_experts} experts, {k}, {weighted}"
            yield (
                "order of pairs",
                case,
                functools.partial(ordered, *(n_tokens, n_experts, k), weighted),
            )
    yield "expert choice", "equal scores", functools.partial(of_equal_scores)
    for size in ((1, 5), (45, 17)):
        yield "ReLU choice", str(size), functools.partial(opened, *size)
        for rule in (Threshold(0.5, True, 0.0), Threshold(0.4, False, 0.3)):
            yield "threshold gates", f"{size} {rule}", functools.partial(gated, rule, *size)
    for name in OPERATORS:
        yield "opcheck, router", name, functools.partial(opcheck, name)
