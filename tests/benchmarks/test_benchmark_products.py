"""The floor under a step: its matrix products are found, forward and backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.products import products_alone
from benchmarks.turns import ratio, take_turns


def test_products_of_forward_and_backward_are_counted():
    x, w = torch.randn(10, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    seconds, flops = products_alone(lambda: F.linear(x, w).sum().backward(), turns=2)
    assert flops == 3 * 2 * 10 * 6 * 4
    assert seconds > 0


def test_a_batch_of_products_is_counted_whole():
    _, flops = products_alone(lambda: torch.randn(3, 5, 7) @ torch.randn(3, 7, 2), turns=2)
    assert flops == 3 * 2 * 5 * 7 * 2


def test_calls_take_turns_and_a_ratio_is_of_the_same_turn():
    order = []
    seconds = take_turns([lambda: order.append("a"), lambda: order.append("b")], turns=3)
    assert order == ["a", "b"] * 5  # two turns of warm-up
    assert [len(own) for own in seconds] == [3, 3]
    assert ratio([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]) == 4.0
