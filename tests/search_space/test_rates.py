"""The rule of the learning rates, and who goes by it."""

from __future__ import annotations

import dataclasses

import pytest

from nas.config import StudyConfig
from nas.running.preflight import rates_warning
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.placement import reference
from search_space.presets import PRESETS
from search_space.rates import AT_BASE, BASE, EXPONENTS, MOST, RANGES, Rates, outside, rates

BACKBONE = Backbone()
SPEC = reference(BACKBONE)


def test_the_rule_is_a_power_of_each_ratio():
    assert rates(BASE) == AT_BASE
    for name, power in EXPONENTS._asdict().items():
        doubled = BASE._replace(**{name: 2 * getattr(BASE, name)})
        expected = [2**power * rate for rate in AT_BASE]
        assert rates(doubled) == pytest.approx(expected)


def test_no_rate_is_far_above_those_that_were_tried():
    assert rates(BASE._replace(batch_tokens=1e9)) == pytest.approx(
        [MOST * rate for rate in AT_BASE]
    )
    shortest = RANGES["tokens"][0]
    assert rates(BASE._replace(tokens=1)) == rates(BASE._replace(tokens=shortest))
    assert rates(BASE._replace(tokens=2 * shortest)) < rates(BASE._replace(tokens=shortest))


def test_what_was_fitted_on_holds_the_base():
    assert outside(BASE) == []
    assert set(RANGES) == set(BASE._fields)
    (words,) = outside(BASE._replace(d_model=1024))
    assert words == "d_model 1.02e+03 (fitted on 64 to 128)"


def test_given_rates_win_each_for_itself():
    flops = 1e12
    ruled = Recipe().rates(SPEC, BACKBONE, flops)
    assert Recipe(lr=0.5).rates(SPEC, BACKBONE, flops) == Rates(ruled.matrix_lr, 0.5)
    assert Recipe(matrix_lr=0.5).rates(SPEC, BACKBONE, flops) == Rates(0.5, ruled.lr)


def test_the_length_is_the_designs_own():
    cheap, dear = PRESETS["pkm"](BACKBONE), PRESETS["vanilla_m"](BACKBONE)
    shapes = [Recipe().shape(spec, BACKBONE, 1e12) for spec in (cheap, dear)]
    assert shapes[0].tokens > shapes[1].tokens
    assert shapes[0].tokens == 1e12 / model_cost(cheap, BACKBONE).training_flops


def test_the_rates_are_the_same_at_every_rung():
    request = EvalRequest(
        evaluation=1,
        spec=SPEC,
        backbone=BACKBONE,
        recipe=Recipe(),
        corpus_dir="c",
        until_flops=1e13,
        run_flops=9e13,
    )
    top = dataclasses.replace(request, until_flops=9e13)
    assert request.rates == top.rates
    assert request.identity() == top.identity()
    alone = dataclasses.replace(request, run_flops=0)
    assert alone.rates.lr > request.rates.lr
    assert alone.identity() != request.identity()


def test_a_methods_constant_counts_as_far_as_the_model_has_the_design():
    two = Backbone(n_layers=2)
    for name in PRESETS:
        spec = PRESETS[name](two)
        share = 0.5 if name in ("pkm_middle", "peer_middle", "switch_alternate") else 1
        ruled = rates(Recipe().shape(spec, two, 1e12))
        own = [spec.selection.rate_factor**share * rate for rate in ruled]
        assert Recipe().rates(spec, two, 1e12) == pytest.approx(own), name
    factors = {name: PRESETS[name](two).selection.rate_factor for name in PRESETS}
    routed = ("switch", "switch_alternate", "mixtral", "olmoe", "deepseek_moe", "sigma_moe")
    assert {name: factor for name, factor in factors.items() if factor != 1} == {
        "peer": 0.7,
        "peer_middle": 0.7,
        "dsmoe": 0.75,
        **dict.fromkeys(routed, 0.8),
    }


@pytest.mark.parametrize("value", ["Auto", "0.1", "", [0.1], None, True, 0, float("nan")])
@pytest.mark.parametrize("name", ["lr", "matrix_lr"])
def test_anything_else_is_refused(name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        Recipe(**{name: value})


def config(**changes) -> StudyConfig:
    return StudyConfig.from_dict({"budget": {"trials": 2, "trial_flops": 6e12}} | changes)


def test_a_study_beyond_what_was_fitted_is_told_so():
    assert rates_warning(config()) == ""
    wide = {
        "backbone": {"d_model": 512, "n_heads": 8},
        "budget": {"trials": 2, "trial_flops": 9e13},
    }
    assert "d_model 512 (fitted on 64 to 128)" in rates_warning(config(**wide))
    named = {"recipe": {"lr": 0.01, "matrix_lr": 0.007}}
    assert rates_warning(config(**wide, **named)) == ""
