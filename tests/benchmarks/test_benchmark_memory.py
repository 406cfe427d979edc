"""The benchmarks' measure of memory, on cases with known answers."""

from __future__ import annotations

import torch

from benchmarks.memory import peak_extra_bytes

MIB = 1 << 20


def buffer(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8)


def test_the_peak_is_of_what_lives_together():
    def call() -> None:
        a = buffer(3)
        b = buffer(4)
        del a, b
        buffer(5)

    assert peak_extra_bytes(call) == 7 * MIB


def test_what_stood_before_is_no_extra_but_is_not_a_credit():
    stood = [buffer(8)]

    def call() -> None:
        stood.clear()
        stood.append(buffer(6))

    assert peak_extra_bytes(call) == 6 * MIB


def test_what_is_returned_and_what_a_kernel_holds_inside_count():
    assert peak_extra_bytes(lambda: [buffer(1), buffer(1)]) == 2 * MIB
    x = torch.randn(MIB // 4)
    inside = peak_extra_bytes(lambda: torch.sort(x)[0])
    assert inside >= 3 * MIB  # the values and their int64 places


def test_backward_counts():
    w = torch.randn(MIB // 4, requires_grad=True)
    # What exp keeps for its backward pass, and the gradient.
    assert 2 * MIB <= peak_extra_bytes(lambda: w.exp().sum().backward()) < 3 * MIB


def test_nothing_is_nothing():
    assert peak_extra_bytes(lambda: None) == 0
