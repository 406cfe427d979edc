"""Whatever a space yields is legal, sized as promised, and survives JSON and Optuna."""

from __future__ import annotations

import json
import random

import pytest
from drawing import DRAWN, legal_design, tiny
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from search_space.backbone import Backbone
from search_space.cost import ffn_cost
from search_space.errors import SpecError
from search_space.methods import names
from search_space.methods.straight_through import StraightThroughKnobs
from search_space.space import SearchSpace, designs, params_of, shapes, suggest
from search_space.space.parameters import METHOD, parameters_of
from search_space.space.sizing import TOLERANCE
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

MATCHES = ("free", "active_flops", "total_params")
WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
BACKBONES = {d: Backbone(d_model=d, n_heads=max(1, d // 32)) for d in WIDTHS}
SPACES = [SearchSpace(match=match) for match in MATCHES] + [tiny(match) for match in MATCHES]


def assert_selects(spec: FFNSpec) -> None:
    """A routed design has experts to choose from, and does not read them all."""
    if spec.method != "dense":
        assert spec.n_experts > 1
        assert getattr(spec.selection, "k", 1) < spec.n_experts
        assert getattr(spec.selection, "target_activity", 0.5) < 1


def assert_sized(spec: FFNSpec, space: SearchSpace, backbone: Backbone) -> None:
    if space.match == "free":
        return  # test_space.py measures active widths
    found = getattr(ffn_cost(spec, backbone.d_model), space.match)
    reference = FFNSpec(d_ff=backbone.reference_d_ff)
    target = getattr(ffn_cost(reference, backbone.d_model), space.match)
    assert abs(found / target - 1) <= TOLERANCE


@DRAWN
@given(data=st.data())
def test_every_design_of_a_space_goes_round(data):
    space = data.draw(st.sampled_from(SPACES))
    backbone = data.draw(st.sampled_from(list(BACKBONES.values())))
    params, spec = legal_design(data.draw, space, backbone)
    assert_selects(spec)
    assert_sized(spec, space, backbone)
    asked = [p for p in parameters_of(spec.method) if p.asked(space.match, params)]
    assert {p.name for p in (METHOD, *asked)} == set(params)

    assert FFNSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert FFNSpec.from_dict(spec.canonical().to_dict()).key == spec.key
    assert suggest(space, FixedTrial(json.loads(json.dumps(params))), backbone) == spec
    back = params_of(space, spec, backbone)
    assert suggest(space, FixedTrial(back), backbone).key == spec.key


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("method", names())
def test_every_method_has_designs_at_every_width(method, match):
    space = SearchSpace(methods=(method,), match=match)
    for backbone in BACKBONES.values():
        spec, _ = next(shapes(space, backbone))
        assert spec.method == method


class RandomTrial:
    """Uniform picks."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def suggest_categorical(self, name, choices):
        return self.rng.choice(list(choices))

    def suggest_float(self, name, low, high, *, log=False):
        return self.rng.uniform(low, high)


def is_legal(space: SearchSpace, backbone: Backbone, seed: int) -> bool:
    try:
        suggest(space, RandomTrial(seed), backbone)
    except SpecError:
        return False
    return True


@pytest.mark.parametrize("space", [SearchSpace(), tiny()], ids=["default", "tiny"])
@pytest.mark.parametrize("d_model", WIDTHS)
def test_most_draws_are_legal(d_model, space):
    legal = [is_legal(space, BACKBONES[d_model], seed) for seed in range(200)]
    assert sum(legal) > 0.7 * len(legal)


def test_one_expert_is_refused_with_the_way_out():
    sections = {"straight_through": StraightThroughKnobs(expansion=(1,))}
    space = SearchSpace(methods=("straight_through",), granularity=(1,), sections=sections)
    assert list(designs(space, BACKBONES[64])) == []
    with pytest.raises(SpecError, match=r"selects nothing: granularity 1 \* expansion 1 is 1"):
        suggest(space, RandomTrial(0), BACKBONES[64])
