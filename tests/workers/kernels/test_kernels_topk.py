"""The choice of the largest entries and sums."""

from __future__ import annotations

import math

import pytest
import reference
import torch

from workers.kernels.api.topk import top_indices
from workers.kernels.torch import topk
from workers.kernels.torch.product_key import best_sums

pytestmark = pytest.mark.usefixtures("form")

DTYPES = [torch.float32, torch.float64, torch.float16]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("k", [1, 5, 33])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_of_each_row_in_order(dtype, k, chunk, monkeypatch):
    monkeypatch.setattr(topk, "CHUNK_BYTES", chunk)
    torch.manual_seed(0)
    # Different numbers of both signs, among them 0 and infinities.
    entries = torch.cat((torch.linspace(-3, 3, 31), torch.tensor([math.inf, -math.inf]))).to(dtype)
    score = torch.stack([entries[torch.randperm(33)] for _ in range(12)]).view(3, 4, 33)
    found = top_indices(score, k)
    assert torch.equal(found, score.topk(k).indices)
    anyhow = top_indices(score, k, ordered=False)
    assert torch.equal(anyhow.sort().values, found.sort().values)


def test_strided_scores_equal_entries_and_no_rows():
    score = torch.randn(5, 7).t()
    assert torch.equal(top_indices(score, 2), score.topk(2).indices)
    equal = torch.tensor([[1.0, -0.0, 1.0, 0.0, 1.0]])
    assert sorted(top_indices(equal, 3)[0].tolist()) == [0, 2, 4]
    assert top_indices(torch.empty(0, 4), 2).shape == (0, 2)


@pytest.mark.parametrize(("root", "k"), [(1, 1), (3, 2), (3, 9), (7, 5), (20, 16)])
def test_best_sums_are_those_of_all_sums(root, k):
    torch.manual_seed(k)
    score_H2TR = torch.randn(2, 2, 30, root)
    half_H2TJ, place_H2TJ = score_H2TR.sort(dim=3, descending=True)
    n_half = min(k, root)
    best_H2TK = best_sums(half_H2TJ[..., :n_half], k)
    place_H2TK = place_H2TJ.gather(3, best_H2TK)
    _, want_HTK = reference.product_key_topk(score_H2TR, k)
    assert torch.equal(place_H2TK[:, 0] * root + place_H2TK[:, 1], want_HTK)
