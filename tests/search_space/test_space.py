"""A search space yields legal designs, sizes them as promised, and finds its way back."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from optuna.trial import FixedTrial

from search_space.backbone import Backbone
from search_space.cost import ffn_cost
from search_space.domain import Range
from search_space.errors import InputError, SpecError
from search_space.methods import names
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKeyKnobs
from search_space.methods.topk import TopK, TopKKnobs
from search_space.presets import PRESETS
from search_space.space import SearchSpace, combinations, designs, params_of, suggest
from search_space.spec import FFNSpec

BACKBONE = Backbone(d_model=128)
REFERENCE = BACKBONE.reference_d_ff


# One choice of everything that a test does not vary.
PLAIN = {
    "active_width": (1,),
    "expansion": (8,),
    "granularity": (1,),
    "depth": (1,),
    "activation": ("gelu",),
    "gated": (False,),
    "shared_width": (0,),
    "output_gate": (False,),
    "placement": "all",
    "lr_multiplier": (1,),
}


def plain(**changes) -> SearchSpace:
    return SearchSpace(**(PLAIN | changes))


def wide(method: str, **changes) -> SearchSpace:
    """A space with several choices of everything that `method` has."""
    fields = {
        "methods": [method],
        "active_width": [0.5, 1],
        "expansion": [2, 8],
        "granularity": [1, 4],
        "depth": [1, 2],
        "activation": ["gelu", "silu"],
        "gated": [False, True],
        "shared_width": [0, 0.25],
        "output_gate": [False, True],
        "lr_multiplier": {"low": 0.5, "high": 2, "log": True},
        "topk": {"normalize": [False, True], "balance_weight": {"low": 0.001, "high": 0.1}},
        "straight_through": {"expansion": [1, 2]},
        "product_key": {"values": ["peer", "pkm"], "k": [8], "query_norm": ["batch", "none"]},
    }
    return SearchSpace.from_dict(fields | changes)


class RandomTrial:
    """The obvious trial: uniform picks, remembered."""

    def __init__(self, seed: int) -> None:
        self.rng, self.params = random.Random(seed), {}

    def suggest_categorical(self, name, choices):
        assert name not in self.params, f"{name} was asked twice"
        return self.params.setdefault(name, self.rng.choice(list(choices)))

    def suggest_float(self, name, low, high, *, log=False):
        assert name not in self.params, f"{name} was asked twice"
        return self.params.setdefault(name, self.rng.uniform(low, high))


def drawn(space: SearchSpace, n: int = 40):
    for seed in range(n):
        trial = RandomTrial(seed)
        try:
            yield trial.params, suggest(space, trial, BACKBONE)
        except SpecError:
            continue


def width_a_token_uses(spec: FFNSpec, params: dict) -> float:
    """Hidden units, from the spec's own numbers."""
    sel = spec.selection
    if spec.method == "dense":
        return spec.d_ff + spec.shared_width
    if spec.method == "straight_through":
        share = 1 / params["straight_through.expansion"]
    elif spec.method == "relu_routing":
        share = sel.target_activity
    else:
        share = sel.k * getattr(sel, "heads", 1) / spec.n_experts
    return share * spec.d_ff + spec.shared_width


@pytest.mark.parametrize("method", names())
def test_parameters_lead_back_to_the_same_design(method):
    space = wide(method)
    draws = list(drawn(space))
    assert len(draws) > 20
    for params, spec in draws:
        assert spec.method == method
        assert suggest(space, FixedTrial(params), BACKBONE) == spec
        again = suggest(space, FixedTrial(params_of(space, spec, BACKBONE)), BACKBONE)
        assert again.key == spec.key
        stored = FFNSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert params_of(space, stored, BACKBONE)["lr_multiplier"] == params["lr_multiplier"]


@pytest.mark.parametrize("method", names())
def test_a_trial_is_asked_only_for_what_the_method_has(method):
    for params, spec in drawn(wide(method)):
        prefixes = {name.split(".")[0] for name in params if "." in name}
        assert prefixes <= {method}
        assert ("topk.normalize" in params) == (method == "topk" and spec.selection.k > 1)
        assert ("shared_width" in params) == (method != "dense" or spec.output_gate)
        assert ("active_width" in params) == (method != "product_key")


@pytest.mark.parametrize("method", [m for m in names() if m != "product_key"])
def test_free_designs_use_the_active_width_asked_for(method):
    for params, spec in drawn(wide(method)):
        wanted = params["active_width"] * REFERENCE
        assert width_a_token_uses(spec, params) == pytest.approx(wanted, rel=0.05)
        if spec.shared_width:
            assert spec.shared_width == pytest.approx(0.25 * wanted, rel=0.1)


def test_the_ratios_are_those_of_the_fine_grained_scaling_law():
    space = plain(methods=("topk",), granularity=(8,))
    (_, spec), *_ = designs(space, BACKBONE)
    assert (spec.n_experts, spec.expert_width, spec.selection.k) == (64, 64, 8)


@pytest.mark.parametrize("match", ["active_flops", "total_params"])
@pytest.mark.parametrize("method", sorted(names()))
def test_matched_designs_cost_what_the_reference_costs(method, match):
    space = wide(method, match=match, active_width=[1], shared_width=[0])
    target = getattr(ffn_cost(FFNSpec(d_ff=REFERENCE), BACKBONE.d_model), match)
    draws = list(drawn(space))
    assert draws
    for params, spec in draws:
        assert getattr(ffn_cost(spec, BACKBONE.d_model), match) == pytest.approx(target, rel=0.05)
        assert (
            suggest(space, FixedTrial(params_of(space, spec, BACKBONE)), BACKBONE).key == spec.key
        )
        assert "active_width" not in params


def test_the_matched_width_is_the_nearest_legal_one():
    space = plain(methods=("dense",), match="active_flops", gated=(True,))
    (_, spec), *_ = designs(space, BACKBONE)
    target = ffn_cost(FFNSpec(d_ff=REFERENCE), BACKBONE.d_model).active_flops

    def miss(width):
        cost = ffn_cost(FFNSpec(d_ff=width, gated=True), BACKBONE.d_model)
        return abs(cost.active_flops - target)

    assert spec.d_ff == min(range(4, 2048, 4), key=miss)


def test_a_width_that_rounding_moves_too_far_is_refused():
    space = plain(methods=("hash",), granularity=(8,), width_multiple=48)
    with pytest.raises(SpecError, match=r"active_width 512 cannot be met.*-25% off"):
        suggest(space, RandomTrial(0), BACKBONE)


def test_direct_selection_leaves_units_out_however_small_the_expansion():
    backbone = Backbone(d_model=8, n_heads=1, reference_d_ff=4)
    space = plain(methods=("direct",), match="total_params", expansion=(1.1,))
    spec = suggest(space, RandomTrial(0), backbone)
    assert (spec.selection.k, spec.n_experts) == (3, 4)


def test_product_keys_have_more_experts_than_a_head_reads():
    knobs = ProductKeyKnobs(heads=(1,), k=(1, 4, 5), expansion=(1,), values=("peer",))
    for match in ("free", "active_flops", "total_params"):
        space = plain(methods=("product_key",), match=match, sections={"product_key": knobs})
        for _, spec in designs(space, Backbone(d_model=16, n_heads=1)):
            assert spec.selection.k < spec.n_experts


def test_combinations_counts_different_legal_designs():
    space = plain(
        methods=("dense", "hash"),
        expansion=(2, 4, 8),
        granularity=(1, 2, 3),
        depth=(1, 2),
        activation=("gelu", "relu"),
        output_gate=(False, True),
        lr_multiplier=Range(low=0.5, high=2.0),
    )
    dense = 2 * 2 * (1 + 3)  # depth, activation; plain, or gated outputs of 1, 2 or 3 blocks
    hashed = 2 * 2 * 2 * 3 * 3 * 2  # both kinds of table
    assert combinations(space, BACKBONE) == dense + hashed
    keys = {spec.key for _, spec in designs(space, BACKBONE)}
    assert len(keys) == dense + hashed


def test_combinations_leaves_out_illegal_and_repeated_ones():
    space = plain(
        methods=("topk",),
        expansion=(1.5, 2),
        granularity=(1, 2),
        active_width=(0.5, 1),
        sections={"topk": TopKKnobs(gate="sigmoid")},
    )
    # 1.5 experts are refused: (1, 2), (2, 1.5) and (2, 2) are left, at two widths each; k = 2 can
    # be normalised.
    assert combinations(space, BACKBONE) == (1 + 2 + 2) * 2


def test_designs_visits_every_path_once():
    space = plain(methods=("hash",), granularity=(1, 2, 4, 8), depth=(1, 2), gated=(False, True))
    found = [tuple(sorted(params.items())) for params, _ in designs(space, BACKBONE)]
    every = itertools.product((1, 2, 4, 8), (1, 2), (False, True), (True, False))
    assert len(found) == len(set(found)) == len(list(every))


OUTSIDE = {
    "method": FFNSpec(d_ff=512, selection=Hash()),
    "activation": FFNSpec(d_ff=512, activation="silu"),
    "lr_multiplier": FFNSpec(d_ff=512, lr_multiplier=3),
    "topk.z_weight": FFNSpec(d_ff=2048, expert_width=512, selection=TopK(k=1, z_weight=0.5)),
    "d_ff 500": FFNSpec(d_ff=500),
    "shared_width 64": FFNSpec(
        d_ff=2048, expert_width=512, shared_width=64, selection=TopK(z_weight=0, balance_weight=0)
    ),
}


@pytest.mark.parametrize("why", OUTSIDE)
def test_a_spec_outside_the_space_is_refused_with_the_reason(why):
    space = plain(
        methods=("dense", "topk"),
        lr_multiplier=Range(low=0.5, high=2.0),
        sections={"topk": TopKKnobs(z_weight=(0,), balance_weight=(0,))},
    )
    with pytest.raises(InputError, match=f"lies outside the space: .*{why}"):
        params_of(space, OUTSIDE[why], BACKBONE)


def test_a_design_of_another_width_says_which_of_its_methods_ratios_to_widen():
    peer = PRESETS["peer"](BACKBONE)
    with pytest.raises(InputError, match=r"; widen product_key\.key_dim, product_key\.expansion$"):
        params_of(
            SearchSpace(sections={"product_key": ProductKeyKnobs(key_dim=(0.125,))}), peer, BACKBONE
        )


def test_presets_lie_inside_the_default_space():
    # DeepSeekMoE reads 6 of 64 experts, which no common granularity and expansion give.
    deepseek = {"granularity": [1, 6], "expansion": [64 / 6]}
    for name, preset in PRESETS.items():
        space = SearchSpace.from_dict(deepseek if name == "deepseek_moe" else {})
        spec = preset(BACKBONE)
        params = params_of(space, spec, BACKBONE)
        assert suggest(space, FixedTrial(params), BACKBONE).key == spec.key, name


REFUSED = {
    "unknown key 'activations'; did you mean 'activation'": {"activations": ["gelu"]},
    "space.topk: unknown key 'gates'; did you mean 'gate'": {"topk": {"gates": ["softmax"]}},
    "unknown method 'top_k'; did you mean 'topk'": {"methods": ["top_k"]},
    "space.methods is empty": {"methods": []},
    "space.activation: activation must be one of": {"activation": ["gelu", "swish"]},
    "space.gated: gated must be true or false: got 'yes'": {"gated": ["yes"]},
    "space.depth must be whole numbers of at least 1: got 0": {"depth": [0, 1]},
    "space.depth must be whole numbers of at least 1: got 1.5": {"depth": [1.5]},
    "space.granularity lists 2 twice": {"granularity": [2, 4, 2]},
    "space.active_width must be above 0: got 0": {"active_width": [0]},
    "space.active_width must be a finite number: got nan": {"active_width": [float("nan")]},
    "space.active_width must be a finite number: got 'wide'": {"active_width": ["wide"]},
    "space.expansion must be above 1, or hash would read every expert": {
        "methods": ["hash"],
        "expansion": [1, 2],
    },
    r"space.shared_width is a share of the active width in \[0, 1\): got 1": {"shared_width": [1]},
    "space.match must be one of": {"match": "flops"},
    "space.active_width is derived under match: active_flops": {
        "match": "active_flops",
        "active_width": [0.5],
    },
    "space.width_multiple must be a whole number of at least 1": {"width_multiple": 0},
    "space.width_multiple must be at most 4,294,967,296": {"width_multiple": 2**33},
    "space.depth is a list of choices, not a range": {"depth": {"low": 1, "high": 2}},
    "space.topk.z_weight: a range needs low and high": {"topk": {"z_weight": {"low": 0.1}}},
    "^space.lr_multiplier: low must be below high: got 2.0, 1.0": {
        "lr_multiplier": {"low": 2, "high": 1}
    },
    "^space.lr_multiplier: a log range needs low above 0": {
        "lr_multiplier": {"low": 0, "high": 1, "log": True}
    },
    "^space.topk.z_weight: low must be below high": {"topk": {"z_weight": {"low": 2, "high": 1}}},
    "space.topk.z_weight: z_weight must be a finite number of at least 0": {
        "topk": {"z_weight": [-1]}
    },
    "space.straight_through.tau: tau is a threshold": {"straight_through": {"tau": [1.0]}},
    r"space.product_key.key_dim is a ratio of d_model in \(0, 8\]: got 64": {
        "product_key": {"key_dim": 64}
    },
    "space.product_key.expert_width must be whole numbers of at least 1: got 0.5": {
        "product_key": {"expert_width": [0.5]}
    },
    "space.product_key.expansion must be numbers of at least 1: got 0.5": {
        "product_key": {"expansion": [0.5]}
    },
    "space.product_key.k: k must be a whole number": {"product_key": {"k": [0]}},
    "space.topk is a mapping": {"topk": ["softmax"]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_one_line_with_the_rule(message):
    with pytest.raises(InputError, match=message) as caught:
        SearchSpace.from_dict(REFUSED[message])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", names())
def test_plain_data_and_back(method):
    space = wide(method)
    data = json.loads(json.dumps(space.to_dict()))
    assert SearchSpace.from_dict(data) == space


def test_one_choice_needs_no_list():
    assert SearchSpace.from_dict({"activation": "relu"}).activation == ("relu",)
