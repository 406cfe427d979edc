"""Counts of designs agree with visiting every one, and the listing says what a space asks."""

from __future__ import annotations

import dataclasses
import time

import pytest
from depth import leading

from search_space.backbone import Backbone
from search_space.domain import Range, words
from search_space.methods import names
from search_space.space import SearchSpace, combinations, count_designs, designs, shapes
from search_space.space.parameters import every_parameter, offered, when

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=64)
MATCHES = ("free", "active_flops", "total_params")


def small(method: str, match: str) -> SearchSpace:
    """Two choices of what matters to the count, so that every design can be visited."""
    return SearchSpace.from_dict(
        {
            "methods": [method],
            "match": match,
            "granularity": [1, 2],
            "expansion": [1.5, 2],
            "depth": [1, 3],
            "activation": ["gelu", "relu"],
            "active_width": [0.5, 1] if match == "free" else [1],
            "shared_width": [0, 0.02, 0.03],  # the two shares round to one width
            "width_multiple": 8,
            "topk": {"balance_weight": [0, 0.01], "gate": ["sigmoid"]},
            "product_key": {"heads": [2], "k": [4, 8], "expert_width": [1, 4], "key_dim": 0.5},
        }
    )


@pytest.mark.parametrize("match", leading(MATCHES, 1))
@pytest.mark.parametrize("method", names())
def test_the_count_is_that_of_every_design(method, match):
    space = small(method, match)
    every = {spec.key for _, spec in designs(space, BACKBONE)}
    (count,) = count_designs(space, BACKBONE)
    assert (count.method, count.complete) == (method, True)
    assert count.designs == len(every) == combinations(space, BACKBONE)


def test_the_default_space_is_counted_in_seconds():
    space, start = SearchSpace(), time.monotonic()
    counts = count_designs(space, Backbone(), seconds=15)
    assert time.monotonic() - start < 20
    assert [count.method for count in counts] == list(names())
    assert all(count.complete and count.designs > 100 for count in counts)


def test_a_count_that_runs_out_of_time_says_so():
    full = SearchSpace(methods=("topk",))
    whole = combinations(full, BACKBONE)
    (count,) = count_designs(full, BACKBONE, seconds=0)
    assert not count.complete
    assert count.designs < whole


def test_shapes_offer_every_cost():
    space = small("topk", "free")
    found = {dataclasses.astuple(spec)[:2] for _, spec in designs(space, BACKBONE)}
    every = list(shapes(space, BACKBONE))
    assert {dataclasses.astuple(spec)[:2] for spec, _ in every} == found
    # Each stands for 2 activations and 2 balance weights; k = 2 for both ways to normalise too.
    assert {(spec.selection.k, n) for spec, n in every} == {(1, 4), (2, 8)}


LISTED = {
    ("gated", ()): "always; with product_key only if values peer",
    ("shared_width", ("dense", "topk")): "always; with dense only if output_gate true",
    ("shared_width", ("dense",)): "dense if output_gate true",
    ("granularity", ("dense", "topk", "direct")): "dense if output_gate true, topk",
    ("topk.normalize", ()): "topk if granularity above 1",
    ("product_key.k", ("product_key",)): "always (match free or total_params)",
    ("product_key.k", ()): "product_key (match free or total_params)",
    ("depth", ()): "always",
}


@pytest.mark.parametrize("name", LISTED)
def test_when_a_parameter_is_asked_in_words(name):
    space = SearchSpace(methods=name[1]) if name[1] else SearchSpace()
    (parameter,) = (p for p in offered(space) if p.name == name[0])
    assert when(space, parameter) == LISTED[name]


def test_a_space_lists_what_its_methods_and_mode_have():
    def listed(**fields):
        return {p.name for p in offered(SearchSpace(**fields))}

    assert listed() == {p.name for p in every_parameter()} - {"cut"}  # of pretrained FFNs
    assert "expansion" not in listed(methods=("dense", "straight_through"))
    assert not {"active_width", "product_key.k"} & listed(match="active_flops")
    assert "product_key.expansion" not in listed(match="total_params")


def test_domains_in_words():
    assert words((False, True)) == "false, true"
    assert words((0.5, 1.0)) == "0.5, 1"
    assert words(Range(low=0.01, high=1, log=True)) == "0.01 to 1 (log)"
    assert words(Range(low=0, high=2)) == "0 to 2"
