"""Newton-Schulz in both of the CPU's forms, against its definition in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from workers.kernels.api.flops import custom_flops
from workers.kernels.api.orthogonalize import by_gram, orthogonalize, orthogonalize_flops

pytestmark = [pytest.mark.usefixtures("form"), pytest.mark.slow]

POLYNOMIAL, STEPS = (3.4, -4.8, 2.0), 4
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13}
# Long either way, square, of one row, of whole and of partial blocks, longer than a sum's part.
SHAPES = [(2, 16, 48), (2, 48, 16), (1, 16, 16), (3, 37, 41), (1, 1, 5), (2, 70, 300), (1, 260, 66)]


def by_definition(g_BMN: Tensor) -> Tensor:
    """Steps of X <- (a I + b A + c A^2) X with A = X X^T, from X / |X|."""
    a, b, c = POLYNOMIAL
    x = g_BMN.double()
    x = x / (x.square().sum((1, 2), keepdim=True).sqrt() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def normal(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_definition(shape, dtype):
    g = normal(shape, dtype)
    kept, got = g.clone(), orthogonalize(g, POLYNOMIAL, STEPS)
    assert got.shape == g.shape and got.dtype == dtype
    assert (got - by_definition(g)).abs().max() < TOLERANCE[dtype]
    assert torch.equal(g, kept)


def test_other_strides_and_nothing_at_all():
    g = normal((2, 20, 24)).mT
    assert (orthogonalize(g, POLYNOMIAL, STEPS) - by_definition(g)).abs().max() < 1e-13
    assert not orthogonalize(torch.zeros(2, 3, 8), POLYNOMIAL, STEPS).any()
    assert orthogonalize(torch.zeros(0, 3, 8), POLYNOMIAL, STEPS).shape == (0, 3, 8)


def test_what_is_not_a_number_stays_in_its_matrix():
    g = normal((3, 20, 40))
    g[1, 3, 7] = torch.nan
    got = orthogonalize(g, POLYNOMIAL, STEPS)
    assert got[1].isnan().all() and got[[0, 2]].isfinite().all()


@pytest.mark.parametrize("shape", [(2, 16, 48), (3, 48, 40)])
def test_its_flops_are_those_of_whole_products(shape):
    with FlopCounterMode(display=False, custom_mapping=custom_flops()) as counter:
        orthogonalize(normal(shape), POLYNOMIAL, STEPS)
    assert counter.get_total_flops() == orthogonalize_flops(shape, STEPS)
    assert by_gram(*shape[1:]) == (shape[2] == 48)
