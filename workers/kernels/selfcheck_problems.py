"""What a GPU's forms are asked in their check: each operation that has a kernel of its own, in each
of its ways, at odd sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.api.rms_norm import EPS
from workers.kernels.choice import Rule, Threshold
from workers.kernels.pairs import Loads, Operands, Pairs
from workers.kernels.row_order import RowOrder

COUNTS = [70, 0, 1, 129]
SIZES_T = [3, 0, 17, 1]
INNER, OUTER, ROWS, WIDTH, HEAD = 130, 75, 50, 301, 24
PARTS = 3  # of OUTER units, each with a weight
TOKENS, VOCABULARY, ROOT, CHOICES = 60, 5003, 13, 7

Call = Callable[..., Tensor]
Several = Callable[..., Any]  # a form that answers with more than a tensor
# The operation and how it is asked, a call of any form of it with the leaves, and the leaves.
Problem = tuple[str, Call, list[Tensor]]


class _Maker:
    """Random numbers of one dtype on the CPU, the same in every process."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.generator = dtype, torch.Generator().manual_seed(0)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=self.generator)).to(self.dtype)

    def below(self, high: int, n: int) -> Tensor:
        return torch.randint(high, (n,), generator=self.generator)


def problems(dtype: torch.dtype) -> Iterator[Problem]:
    """Each operation that has a kernel, in each of its ways."""
    make = _Maker(dtype)
    yield (
        "grouped_mm",
        lambda run, x, w: run(x, w, Loads(COUNTS)),
        [make.normal(sum(COUNTS), INNER), make.normal(len(COUNTS), INNER, OUTER)],
    )
    yield from _experts(make)
    yield from _reads(make)
    yield _keys(make)
    yield _spread(make)
    yield from _routers(make)
    yield from _rows_alone(make)


def _experts(make: _Maker) -> Iterator[Problem]:
    # Tokens that read an expert twice, and some that read none.
    token_P, shape = make.below(TOKENS, sum(COUNTS)), (len(COUNTS), OUTER, INNER)
    x_TD, weight_P1 = make.normal(TOKENS, INNER), make.normal(len(token_P), 1)
    keys, gates = (make.normal(*shape, scale=INNER**-0.5) for _ in range(2))
    values = make.normal(*shape)

    def gated(
        activation: str,
        run: Call,
        x: Tensor,
        keys: Tensor,
        gates: Tensor | None,
        values: Tensor,
        weight: Tensor,
    ) -> Tensor:
        pairs = Pairs(token_P.to(weight.device), COUNTS)
        return run(Operands(x, keys, gates, values, weight), pairs, activation, None)

    def plain(run: Call, x: Tensor, keys: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        return gated("gelu", run, x, keys, None, values, weight)

    for activation in ACTIVATIONS:
        call, leaves = partial(gated, activation), [x_TD, keys, gates, values, weight_P1]
        yield f"expert_ffn gated by {activation}", call, leaves
    yield "expert_ffn", plain, [x_TD, keys, values, weight_P1]
    yield _joint([x_TD, keys, gates, values, weight_P1], token_P)
    yield from _output_gated(make, [x_TD, keys, gates, values, weight_P1], token_P)
    yield from _dense(x_TD, keys, gates, values)


def _joint(given: list[Tensor], token_P: Tensor) -> Problem:
    """The last two experts' matrices by themselves."""

    def joint(
        run: Call, x: Tensor, keys: Tensor, gates: Tensor, values: Tensor, weight: Tensor
    ) -> Tensor:
        last = keys[-2:], gates[-2:], values[-2:]
        own = Operands(x, keys[:-2], gates[:-2], values[:-2], weight)
        pairs = Pairs(token_P.to(weight.device), COUNTS)
        return run(own, last, pairs, "silu")

    return "joint_ffn", joint, given


def _output_gated(make: _Maker, given: list[Tensor], token_P: Tensor) -> Iterator[Problem]:
    """Gates on the experts' outputs, neither open nor shut: of pairs, and of all tokens."""

    def gated(run: Call, *given: Tensor) -> Tensor:
        *tensors, gate_BD, weight = given
        keys, gates, values = tensors[1:] if len(tensors) == 4 else (tensors[1], None, tensors[2])
        routed = Pairs(token_P.to(weight.device), COUNTS)
        pairs = routed if weight.shape[1] == 1 else Pairs(None, [TOKENS] * len(COUNTS))
        operands = Operands(tensors[0], keys, gates, values, weight)
        return run(operands, gate_BD, pairs, "silu", None)

    x_TD, keys, gates, values, weight_P1 = given
    gate_BD = make.normal(len(COUNTS), INNER, scale=(INNER * OUTER) ** -0.5)
    weight_TB = 1 + x_TD[:, : len(COUNTS)] / 4
    for of, weight in (("pairs", weight_P1), ("all tokens", weight_TB)):
        ungated, last = [x_TD, keys, values], [gate_BD, weight]
        yield f"output_gated_ffn of {of}", gated, [*ungated, *last]
        yield f"output_gated_ffn of {of}, gated", gated, [x_TD, keys, gates, values, *last]


def _dense(x_TD: Tensor, *matrices: Tensor) -> Iterator[Problem]:
    """One expert of all tokens."""

    def dense(run: Call, x: Tensor, *given: Tensor) -> Tensor:
        keys, gates, values = given if len(given) == 3 else (given[0], None, given[1])
        return run(Operands(x, keys, gates, values, None), Pairs(None, [len(x)]), "silu", None)

    def weighted(
        run: Call, x: Tensor, weight: Tensor, keys: Tensor, gates: Tensor, values: Tensor
    ) -> Tensor:
        given = Operands(x, keys, gates, values, weight)
        return run(given, Pairs(None, [len(x)]), "silu", None)

    keys, gates, values = (w_BGD[:1] for w_BGD in matrices)
    yield "dense_ffn gated", dense, [x_TD, keys, gates, values]
    yield "dense_ffn", dense, [x_TD, keys, values]
    weight_TC = 1 + x_TD[:, :PARTS] / 4
    yield "plain_ffn", weighted, [x_TD, weight_TC, keys, gates, values]


def _reads(make: _Maker) -> Iterator[Problem]:
    size_T = torch.tensor(SIZES_T)
    token_P = torch.arange(len(SIZES_T)).repeat_interleave(size_T)
    start_T = size_T.cumsum(0) - size_T
    row_P = make.below(ROWS, len(token_P))

    def order(table: Tensor) -> RowOrder:
        row, token, start = (p.to(table.device) for p in (row_P, token_P, start_T))
        return RowOrder(row, token, start, ROWS)

    yield (
        "row_sum",
        lambda run, weight, table: run(weight, table, order(table), False),
        [make.normal(len(row_P)), make.normal(ROWS, WIDTH)],
    )
    yield (
        "row_dot",
        lambda run, x, table: run(x, table, order(table), None, False),
        [make.normal(len(SIZES_T), WIDTH), make.normal(ROWS, WIDTH)],
    )


def _spread(make: _Maker) -> Problem:
    """The choices of two heads, who may choose one row."""
    order = [torch.randperm(ROOT, generator=make.generator)[:CHOICES] for _ in range(2 * TOKENS)]
    index_TK = torch.stack(order).view(TOKENS, -1)

    def spread(run: Call, weight: Tensor) -> Tensor:
        return run(weight, index_TK.to(weight.device), ROOT, CHOICES, weight.dtype)

    return "spread", spread, [make.normal(*index_TK.shape)]


def _keys(make: _Maker) -> Problem:
    # Sums that differ and are exact in every dtype, so that rounding moves no choice.
    order = [torch.randperm(ROOT, generator=make.generator) for _ in range(4)]
    sub_keys_SR1 = (torch.stack(order) * torch.tensor([[16], [1]] * 2)).unsqueeze(2)
    sign_ST1 = 1 - 2 * make.below(2, TOKENS).view(1, -1, 1).expand(4, -1, -1)
    leaves = [sign_ST1.to(make.dtype), sub_keys_SR1.to(make.dtype)]
    return "product_key_search", lambda run, q, keys: run(q, keys, CHOICES)[0], leaves


def _routers(make: _Maker) -> Iterator[Problem]:
    # Logits in steps that no two of a token share, in float32 as routers are: no choice is close.
    order = [torch.randperm(ROOT, generator=make.generator) for _ in range(TOKENS)]
    z_TB = torch.stack(order) / 4.0

    def chosen(rule: Rule, run: Several, z: Tensor) -> Tensor:
        found = run(z, None, rule, None)
        whole = [found.load_B, found.pairs.token_P, *found.pairs.by_token(len(z))]
        # None above 1, so that a small error in the weights is none of a large number.
        shares = [part.to(z.dtype) / (TOKENS * (CHOICES + 1)) for part in whole]
        return torch.cat([found.weight_P, *shares, found.loss.view(1)])

    for softmax in (True, False):
        rule = Rule(CHOICES, softmax, True, balance=0.5, z=0.01, entropy=0.5, counts=True, always=1)
        yield f"expert_choice softmax={softmax}", partial(chosen, rule), [z_TB]
    centred_TB = z_TB - (ROOT // 2 + 0.5) / 4.0

    def opened(run: Several, z: Tensor) -> Tensor:
        found = run(z, torch.tensor(0.5, device=z.device))
        order_P, start_T1 = found.pairs.by_token(len(z))
        return torch.cat((found.weight_P[order_P[: start_T1[-1]]], found.loss.view(1)))

    def gated(run: Several, z: Tensor) -> Tensor:
        weight_TB, loss = run(z, Threshold(0.6, renormalize=True, sparsity=0.5))
        return torch.cat((weight_TB.flatten(), loss.view(1)))

    yield "relu_choice", opened, [centred_TB]
    yield "threshold_gates", gated, [centred_TB]
    index_TK = torch.stack(order)[:, :CHOICES]

    def ordered(run: Several, weight: Tensor) -> Tensor:
        pairs, weight_P = run(index_TK.to(weight.device), weight, ROOT)
        return torch.cat((weight_P, pairs.token_P.to(weight.dtype) / TOKENS))

    yield "order_pairs", ordered, [make.normal(TOKENS, CHOICES)]


def _rows_alone(make: _Maker) -> Iterator[Problem]:
    for width in (WIDTH, HEAD):
        leaves = [make.normal(TOKENS, width), make.normal(width)]
        yield f"rms_norm of {width}", lambda run, x, w: run(x, w, EPS), leaves
        yield from _sums(make, width)
    yield _heads(make)
    target_T = make.below(VOCABULARY, TOKENS)
    yield (
        "linear_cross_entropy",
        lambda run, x, w: run(x, w, target_T.to(x.device)),
        [make.normal(TOKENS, INNER), make.normal(VOCABULARY, INNER, scale=INNER**-0.5)],
    )


def _sums(make: _Maker, width: int) -> Iterator[Problem]:
    """A residual sum and its norm, read once and twice; in 16 bits as mixed precision has it, whose
    stream is float32."""

    def twice(run: Call, x: Tensor, added: Tensor, w: Tensor) -> Tensor:
        mixed = x.dtype.itemsize == 2
        given = (x.float(), added, w.float()) if mixed else (x, added, w)
        return torch.stack(list(run(*given, EPS, True, x.dtype)))

    def once(run: Call, x: Tensor, w: Tensor) -> Tensor:
        sum_TD, _, y_TD = run(x, None, w, EPS, False, x.dtype)
        return torch.stack((sum_TD, y_TD))

    leaves = [make.normal(TOKENS, width) for _ in range(2)]
    yield f"residual_norm of {width}, twice", twice, [*leaves, make.normal(width)]
    yield f"residual_norm of {width}, once", once, [leaves[0], make.normal(width)]


def _heads(make: _Maker) -> Problem:
    angle = torch.arange(TOKENS * HEAD // 2).view(1, 1, TOKENS, HEAD // 2).float()

    def heads(run: Call, qkv: Tensor, q_gain: Tensor, k_gain: Tensor) -> Tensor:
        cos, sin = (x.to(qkv.device, qkv.dtype) for x in (angle.cos(), angle.sin()))
        q, k, v = run(qkv, q_gain, k_gain, cos, sin, EPS)
        return torch.stack((q, k, v))

    leaves = [make.normal(2, TOKENS, 3, 2, HEAD), make.normal(HEAD), make.normal(HEAD)]
    return "normed_heads", heads, leaves
