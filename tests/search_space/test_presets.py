"""The published designs, at many sizes."""

from __future__ import annotations

import pytest

from search_space.backbone import Backbone
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

NAMES = [
    "dense",
    "switch",
    "switch_alternate",
    "mixtral",
    "olmoe",
    "deepseek_moe",
    "sigma_moe",
    "hash",
    "avgk",
    "vanilla_m",
    "pkm",
    "pkm_middle",
    "peer",
    "peer_middle",
    "dsmoe",
    "remoe",
    "finedeep",
]

# Hidden units a token uses, as a share of the reference width; the others have their own shape.
HAVE_THEIR_OWN = {"pkm", "pkm_middle", "peer", "peer_middle", "dsmoe"}
READS_THE_REFERENCE_WIDTH = sorted(set(NAMES) - HAVE_THEIR_OWN)


def active_units(spec: FFNSpec) -> float:
    sel = spec.selection
    if spec.method == "relu_routing":
        return sel.target_activity * spec.d_ff
    per_layer = getattr(sel, "heads", 1) * getattr(sel, "k", spec.n_experts) * spec.expert_width
    return spec.depth * per_layer + spec.shared_width


def test_every_published_design_is_there():
    assert list(PRESETS) == NAMES


@pytest.mark.parametrize("d_model", [64, 72, 128, 320, 512, 1024])
@pytest.mark.parametrize("name", NAMES)
def test_presets_are_legal_at_every_size(name, d_model):
    for reference in (0, 16, 100, 341, 3000):
        spec = PRESETS[name](Backbone(d_model=d_model, reference_d_ff=reference))
        assert FFNSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("d_model", [64, 128, 256, 1024])
@pytest.mark.parametrize("name", READS_THE_REFERENCE_WIDTH)
def test_a_token_uses_the_reference_width(name, d_model):
    backbone = Backbone(d_model=d_model)
    assert active_units(PRESETS[name](backbone)) == backbone.reference_d_ff


@pytest.mark.parametrize("name", ["pkm", "peer"])
def test_product_keys_use_the_papers_heads_and_k(name):
    for d_model in (64, 1024):
        assert active_units(PRESETS[name](Backbone(d_model=d_model))) == 128


def test_pkm_is_the_papers_memory_at_the_papers_width():
    spec = PRESETS["pkm"](Backbone(d_model=1024, n_heads=16))
    assert (spec.n_experts, spec.selection.key_dim) == (512**2, 512)


def test_dsmoe_cuts_the_reference_into_blocks():
    spec = PRESETS["dsmoe"](Backbone(d_model=128))
    assert (spec.d_ff, spec.n_experts, spec.selection.tau) == (512, 8, 0.5)


def test_no_two_presets_are_the_same_design():
    keys = {preset(Backbone()).key for preset in PRESETS.values()}
    assert len(keys) == len(PRESETS)


def test_every_preset_names_its_source():
    for name, preset in PRESETS.items():
        assert any(part.isdigit() for part in preset.__doc__.replace(".", " ").split()), name
