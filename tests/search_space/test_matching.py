"""Published designs at the cost of the dense FFN beside them."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.cost import ffn_cost
from search_space.errors import InputError, SpecError
from search_space.matching import Equal, MatchedPreset, matched
from search_space.placement import reference
from search_space.presets import PRESETS
from search_space.space.sizing import TOLERANCE

BACKBONE = Backbone()
# More values than the dense FFN has parameters, however few there may be.
NO_PARAMETERS_LEFT = {"pkm", "pkm_middle", "peer", "peer_middle"}
KEPT = ("depth", "activation", "gated", "output_gate", "lr_multiplier", "placement")


@pytest.mark.parametrize("match", get_args(Equal))
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("width", [0, 1024])
def test_a_matched_preset_costs_what_the_dense_ffn_does(name, match, width):
    backbone = dataclasses.replace(BACKBONE, reference_d_ff=width)
    published = PRESETS[name](backbone)
    if match == "total_params" and name in NO_PARAMETERS_LEFT:
        with pytest.raises(SpecError, match="no width is legal; take it as published"):
            matched(published, match, backbone)
        return
    spec = matched(published, match, backbone)
    ours, dense = (ffn_cost(each, backbone.d_model) for each in (spec, reference(backbone)))
    assert getattr(ours, match) == pytest.approx(getattr(dense, match), rel=TOLERANCE)
    assert spec.method == published.method
    assert all(getattr(spec, field) == getattr(published, field) for field in KEPT)


@pytest.mark.parametrize("name", ["switch", "olmoe", "deepseek_moe", "dsmoe", "finedeep"])
def test_whole_experts_keep_their_number_and_which_are_read(name):
    published = PRESETS[name](BACKBONE)
    spec = matched(published, "active_flops", BACKBONE)
    assert (spec.n_experts, spec.selection) == (published.n_experts, published.selection)
    shared = published.shared_width / published.expert_width
    assert spec.shared_width == shared * spec.expert_width


def test_single_units_keep_the_share_that_is_read():
    spec = matched(PRESETS["vanilla_m"](BACKBONE), "active_flops", BACKBONE)
    assert spec.n_experts == pytest.approx(8 * spec.selection.k, rel=0.01)


def test_a_gated_design_is_given_a_third_more_at_its_published_width():
    gated = PRESETS["mixtral"](BACKBONE)
    dense = ffn_cost(reference(BACKBONE), BACKBONE.d_model).active_flops
    assert ffn_cost(gated, BACKBONE.d_model).active_flops > 1.4 * dense
    assert matched(gated, "active_flops", BACKBONE).expert_width < 0.7 * gated.expert_width


def test_a_study_begins_with_them_and_stores_them():
    given = {
        "budget": {"trials": 4, "trial_flops": 1e12},
        "warm_start": ["olmoe", {"preset": "olmoe", "match": "active_flops"}],
    }
    config = StudyConfig.from_dict(given)
    assert [name for name, _ in config.warm_start_specs()] == ["olmoe", "olmoe at active_flops"]
    (_, published), (_, equal) = config.warm_start_specs()
    assert equal == matched(published, "active_flops", config.backbone)
    assert StudyConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"preset": "olmo", "match": "active_flops"}, "preset: unknown name 'olmo'; .*olmoe"),
        ({"preset": "olmoe"}, "a matched preset needs match: none given"),
        ({"preset": "olmoe", "match": "free"}, "match: unknown cost 'free'"),
        ({"preset": "olmoe", "match": "active_flops", "k": 3}, "unknown key 'k'"),
        ({"preset": ["a"], "match": "active_flops"}, "preset: unknown name"),
        ({"preset": "pkm", "match": "total_params"}, "pkm at total_params: .* cannot be met"),
    ],
)
def test_bad_input_is_one_line(item, words):
    given = {"budget": {"trials": 4, "trial_flops": 1e12}, "warm_start": [item]}
    with pytest.raises(InputError, match=words) as error:
        StudyConfig.from_dict(given)
    assert "\n" not in str(error.value)


def test_a_matched_preset_is_made_of_plain_data():
    item = MatchedPreset("hash", "total_params")
    assert MatchedPreset.from_dict(item.to_dict()) == item
