"""A design in some layers: the others are the reference FFN in every respect."""

from __future__ import annotations

import dataclasses
from typing import get_args

import oracles
import pytest
import torch

from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.design import Placement
from search_space.errors import InputError, SpecError
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.topk import TopK
from search_space.placement import placed, reference
from search_space.presets import PRESETS
from search_space.rates import Rates
from search_space.space import SearchSpace, combinations, designs, params_of, suggest
from search_space.spec import FFNSpec
from workers.evaluate import activity_by_layer
from workers.layers.recording import record_stats
from workers.model import ProxyLM
from workers.training.optimizers import Optimizers

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=5, n_heads=2, vocab_size=40, seq_len=16)
SPEC = FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=1, balance_weight=0.1), lr_multiplier=3)
LAYERS = {
    "all": [True, True, True, True, True],
    "alternate": [False, True, False, True, False],
    "middle": [False, False, True, False, False],
    "all_but_first": [False, True, True, True, True],
}
every_placement = pytest.mark.parametrize("placement", get_args(Placement))


def built(placement: Placement, spec: FFNSpec = SPEC) -> ProxyLM:
    torch.manual_seed(0)
    model = ProxyLM(dataclasses.replace(spec, placement=placement), BACKBONE).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@every_placement
def test_which_layers_have_the_design(placement):
    assert list(placed(placement, 5)) == LAYERS[placement]
    model = built(placement)
    shapes = [tuple(layer.ffn.layers[0].experts.keys_BGD.shape) for layer in model.layers]
    reference_shape = (1, BACKBONE.reference_d_ff, BACKBONE.d_model)
    assert shapes == [(4, 16, 16) if here else reference_shape for here in LAYERS[placement]]


def noted(apart, losses):
    """The same, and a list of the losses that it gives."""

    def noting(*args):
        found = apart(*args)
        losses.append(found[2])
        return found

    return noting


@every_placement
@pytest.mark.parametrize("training", [True, False])
def test_each_layer_is_its_oracle(placement, training):
    model = built(placement).train(training)
    spec = dataclasses.replace(SPEC, placement=placement)
    x_TD, ids_T = torch.randn(7, 16, dtype=torch.float64), torch.randint(40, (7,))
    losses = []
    for layer, here in zip(model.layers, LAYERS[placement], strict=True):
        own = spec if here else reference(BACKBONE)
        tensors = dict(layer.ffn.state_dict())
        wanted, wanted_loss = oracles.ffn(own, tensors, x_TD, ids_T, training)
        found, loss = layer.ffn(x_TD, ids_T)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        assert (loss is None) == (wanted_loss is None) == (not (here and training))
        losses += [] if loss is None else [wanted_loss]
        x_TD = wanted
    if training:  # the mean over the layers that have the design
        ids_NL = torch.randint(40, (1, 7))
        found = model(ids_NL).aux_loss
        each = []
        for layer, here in zip(model.layers, LAYERS[placement], strict=True):
            if here:
                layer.ffn.apart = noted(layer.ffn.apart, each)
        model(ids_NL)
        torch.testing.assert_close(found, torch.stack(each).mean(), rtol=0, atol=1e-12)


@every_placement
def test_the_multiplier_is_for_the_design_alone(placement):
    model = built(placement)
    optimizers = Optimizers(model, Recipe(), Rates(lr=0.1, matrix_lr=0.01), 3.0)
    rates = {
        id(p): group["lr"]
        for optimizer in optimizers.optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for layer, here in zip(model.layers, LAYERS[placement], strict=True):
        times = 3.0 if here else 1.0
        assert {rates[id(p)] for p in layer.ffn.parameters()} == {0.1 * times, 0.01 * times}
        assert {rates[id(p)] for p in layer.attention.parameters()} == {0.1, 0.01}


@every_placement
def test_statistics_are_the_designs_alone(placement):
    model = built(placement, dataclasses.replace(SPEC, selection=ReLURouting()))
    with torch.no_grad(), record_stats(model.eval()) as recorded:
        model(torch.randint(40, (2, 16)))
    there = [layer for layer, here in enumerate(LAYERS[placement]) if here]
    activity = activity_by_layer({name: stats.summary() for name, stats in recorded.items()})
    assert sorted(activity) == there
    assert all(0 < share < 1 for share in activity.values())


def test_a_model_of_too_few_layers_cannot_have_it():
    one = dataclasses.replace(BACKBONE, n_layers=1)
    assert placed("all", 1) == (True,)
    for placement in get_args(Placement)[1:]:
        with pytest.raises(SpecError, match=f"placement {placement} needs a model of at least 2"):
            ProxyLM(dataclasses.replace(SPEC, placement=placement), one)
    with pytest.raises(SpecError, match="placement must be one of"):
        dataclasses.replace(SPEC, placement="last")


STUDY = {"budget": {"trials": 2, "trial_flops": 1e12}, "backbone": {"n_layers": 1}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": {"placement": "middle"}}, "space.placement: placement middle needs"),
        ({"space": {"placement": ["all", "alternate"]}}, "space.placement: placement alternate"),
        ({"warm_start": ["peer_middle"]}, "warm_start: peer_middle: placement middle needs"),
        ({"space": {"placement": "top"}}, "space.placement: placement must be one of"),
    ],
)
def test_a_study_says_so_in_one_line(changes, says):
    with pytest.raises(InputError, match=says) as caught:
        StudyConfig.from_dict(STUDY | changes)
    assert "\n" not in str(caught.value)


def test_a_study_of_one_layer_searches_designs_in_it():
    config = StudyConfig.from_dict(STUDY | {"space": {"methods": ["dense"]}})
    found = {spec.placement for _, spec in designs(config.space, config.backbone)}
    assert found == {"all"}


@pytest.mark.parametrize(("n_layers", "different"), [(1, 1), (2, 2), (3, 3), (4, 4), (12, 4)])
def test_placements_that_mean_the_same_layers_are_tried_once(n_layers, different):
    backbone = dataclasses.replace(BACKBONE, n_layers=n_layers)
    space = SearchSpace(methods=("hash",), granularity=(1, 2), depth=(1, 2))
    held = dataclasses.replace(space, placement="all")
    assert combinations(space, backbone) == different * combinations(held, backbone)
    keys = [spec.key for _, spec in designs(space, backbone)]
    assert len(keys) == len(set(keys)) == combinations(space, backbone)


def test_a_trial_is_asked_for_those_that_differ():
    class First:
        def suggest_categorical(self, name, choices):
            asked[name] = list(choices)
            return choices[0]

        def suggest_float(self, name, low, high, *, log=False):
            return low

    asked, two = {}, dataclasses.replace(BACKBONE, n_layers=2)
    assert suggest(SearchSpace(methods=("hash",)), First(), two).placement == "all"
    assert asked["placement"] == ["all", "alternate"]
    middle = SearchSpace(methods=("hash",), placement="middle")
    with pytest.raises(SpecError, match="placement middle needs a model of at least 2 layers"):
        suggest(middle, First(), dataclasses.replace(BACKBONE, n_layers=1))
    other = dataclasses.replace(PRESETS["switch"](two), placement="middle")
    with pytest.raises(InputError, match="lies outside the space: placement is 'middle', its cho"):
        params_of(SearchSpace(), other, two)


def test_the_published_placements():
    backbone = Backbone(d_model=128, n_layers=12)
    for name, base, layers in (
        ("switch_alternate", "switch", range(1, 12, 2)),
        ("pkm_middle", "pkm", [6]),
        ("peer_middle", "peer", [6]),
    ):
        spec = PRESETS[name](backbone)
        assert dataclasses.replace(spec, placement="all") == PRESETS[base](backbone)
        there = [i for i, here in enumerate(placed(spec.placement, 12)) if here]
        assert there == list(layers)
        assert spec.label.endswith(spec.placement)
        assert params_of(SearchSpace(), spec, backbone)["placement"] == spec.placement
        assert FFNSpec.from_dict(spec.to_dict()) == spec
        assert spec.key != PRESETS[base](backbone).key
