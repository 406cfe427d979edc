"""Which unit goes into which expert."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from search_space.design import Cut
from workers.layers.experts import Experts
from workers.pretrained.cutting import Units, balanced, clusters, fill, scale_to, unit_order

H, D, T, WIDTH = 24, 8, 50, 6


@pytest.fixture
def units():
    torch.manual_seed(0)
    return Units(*(torch.randn(H, D) for _ in range(3)))


@pytest.mark.parametrize("cut", get_args(Cut))
def test_every_cut_takes_every_unit_once(units, cut):
    order_H = unit_order(cut, units, torch.randn(T, H), WIDTH)
    assert sorted(order_H.tolist()) == list(range(H))


def test_units_that_answer_to_the_same_tokens_make_an_expert():
    """Unit h answers to the tokens of its group h % 4; the groups' units lie scattered."""
    torch.manual_seed(1)
    group_H = torch.arange(H) % 4
    answers_TH = (torch.arange(T)[:, None] % 4 == group_H).float()
    hidden_TH = answers_TH * torch.randn(T, H) + 0.01 * torch.randn(T, H)
    of_H = clusters(hidden_TH, WIDTH)
    for b in range(4):
        assert len(set(group_H[of_H == b].tolist())) == 1


def test_clusters_are_of_one_size_even_if_all_units_are_alike():
    of_H = clusters(torch.ones(T, H), WIDTH)
    assert of_H.bincount().tolist() == [WIDTH] * 4


def test_what_does_not_divide_goes_to_the_last_cluster():
    assert balanced(torch.randn(26, 4), WIDTH).bincount().tolist() == [6, 6, 6, 8]


def test_a_full_cluster_keeps_those_that_are_most_like_it():
    likeness_HB = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.6], [0.6, 0.1]])
    assert balanced(likeness_HB, 2).tolist() == [0, 0, 1, 1]


def test_the_largest_weights_come_first(units):
    units.keys_HD[5] *= 100
    units.values_HD[7] *= 10
    assert unit_order("magnitude", units, torch.zeros(T, H), H)[:2].tolist() == [5, 7]


def test_the_largest_contributions_come_first(units):
    hidden_TH = torch.zeros(T, H)
    hidden_TH[:, 3], hidden_TH[:, 9] = -50.0, 5.0
    assert unit_order("activation", units, hidden_TH, H)[:2].tolist() == [3, 9]


def test_experts_have_the_units_in_the_order_and_the_rest_stays_out(units):
    experts = Experts(D, 2, WIDTH, activation="silu", gated=True)
    order_H = torch.arange(H).flip(0)
    fill(experts, units, order_H)
    for own_BGD, given_HD in (
        (experts.gates_BGD, units.gates_HD),
        (experts.keys_BGD, units.keys_HD),
        (experts.values_BGD, units.values_HD),
    ):
        torch.testing.assert_close(own_BGD.detach().flatten(0, 1), given_HD.flip(0)[: 2 * WIDTH])


def test_the_scale_is_that_of_least_squares():
    y_TD = torch.randn(T, D)
    assert scale_to(y_TD, 3 * y_TD) == pytest.approx(3)
    noise_TD = torch.randn(T, D)
    noise_TD -= y_TD * (noise_TD * y_TD).sum() / y_TD.square().sum()
    assert scale_to(y_TD, 2 * y_TD + noise_TD) == pytest.approx(2, rel=1e-5)


def test_no_scale_turns_an_output_round_or_off():
    y_TD = torch.randn(T, D)
    assert scale_to(y_TD, -y_TD) == 1
    assert scale_to(torch.zeros(T, D), y_TD) == 1
