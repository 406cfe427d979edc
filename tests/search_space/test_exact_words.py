"""What a design's words mean: granularity, and which designs are one function."""

from __future__ import annotations

import dataclasses

import pytest
from optuna.trial import FixedTrial

from search_space.backbone import Backbone
from search_space.checks import UNITS
from search_space.methods import names
from search_space.methods.avgk import AvgK
from search_space.methods.dense import Dense
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.space import SearchSpace, params_of, suggest
from search_space.spec import FFNSpec

# Active width / expert width of a sub-layer with 16 experts.
GRANULARITY = [
    (Dense(), 4, 16),
    (TopK(k=3), 4, 3),
    (Hash(k=2), 4, 2),
    (AvgK(k=5), 4, 5),
    (Direct(k=7), 1, 7),
    (ProductKey(heads=2, k=3, key_dim=4), 4, 6),
    (StraightThrough(), 4, 8),
    (ReLURouting(target_activity=0.25), 4, 4),
]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("selection", "width", "want"), GRANULARITY)
def test_granularity_is_active_width_over_expert_width(selection, width, want, depth):
    spec = FFNSpec(d_ff=16 * width * depth, expert_width=width, depth=depth, selection=selection)
    assert spec.n_experts == 16
    assert spec.granularity == want
    assert dataclasses.replace(spec, shared_width=8 * depth).granularity == want


def test_granularity_is_said_of_every_method_and_of_the_whole_width():
    assert {selection.method for selection, _, _ in GRANULARITY} == set(names())
    assert FFNSpec(d_ff=512).granularity == 1
    # Experts as fine as the papers cut them.
    at = {name: preset(Backbone()).granularity for name, preset in PRESETS.items()}
    assert (at["switch"], at["mixtral"], at["olmoe"], at["peer"]) == (1, 2, 8, 128)
    assert (at["remoe"], at["dense"]) == (1, 1)


@pytest.mark.parametrize(("depth", "gated"), [(1, False), (2, True)])
def test_a_dense_design_and_its_shared_ffn_are_one(depth, gated):
    whole = FFNSpec(d_ff=16, depth=depth, gated=gated)
    halves = FFNSpec(d_ff=8, shared_width=8, depth=depth, gated=gated)
    cut = FFNSpec(d_ff=12, shared_width=4, expert_width=2, depth=depth, gated=gated)
    assert whole.key == halves.key == cut.key
    assert halves.canonical() == cut.canonical() == whole


def test_a_shared_ffn_beside_gates_or_a_choice_is_not():
    for knobs in ({"output_gate": True}, {"expert_width": 4, "selection": TopK(k=1)}):
        whole, halves = FFNSpec(d_ff=16, **knobs), FFNSpec(d_ff=8, shared_width=8, **knobs)
        assert whole.key != halves.key
        assert halves.canonical().shared_width == 8


def test_a_space_has_the_dense_design_however_it_is_written():
    space, backbone = SearchSpace(), Backbone()
    spec = FFNSpec(d_ff=backbone.reference_d_ff - 64, shared_width=64)
    again = suggest(space, FixedTrial(params_of(space, spec, backbone)), backbone)
    assert again == FFNSpec(d_ff=backbone.reference_d_ff)
    assert again.key == spec.key


def test_a_width_that_no_spec_may_have_stays_in_two_parts():
    spec = FFNSpec(d_ff=UNITS, shared_width=8)
    assert spec.canonical() == spec
