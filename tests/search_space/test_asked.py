"""What a trial is asked, and the designs that come of it, are those of before: to the byte.

`data/asked.json` holds digests that were taken before methods had homes of their own. A sampler's
proposals, and the parameters that stored studies hold, depend on every name, order and choice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path

import pytest

from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.cost import ffn_cost, model_cost
from search_space.errors import SpecError
from search_space.methods import built_in
from search_space.presets import PRESETS
from search_space.space import SearchSpace, designs, look, params_of, shapes, suggest

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
RECORDED = json.loads((HERE / "data" / "asked.json").read_text())
BACKBONE = Backbone(d_model=64)
MATCHES = ("free", "active_flops", "total_params")


class Recorder:
    """A trial that picks by chance and notes every question."""

    def __init__(self, seed: int) -> None:
        self.rng, self.calls = random.Random(seed), []

    def suggest_categorical(self, name, choices):
        self.calls.append(["categorical", name, list(choices)])
        return self.rng.choice(list(choices))

    def suggest_float(self, name, low, high, *, log=False):
        self.calls.append(["float", name, low, high, log])
        return self.rng.uniform(low, high)


def digest(data) -> str:
    return hashlib.sha256(json.dumps(data, separators=(",", ":")).encode()).hexdigest()[:16]


def asked(space: SearchSpace, backbone: Backbone, paths: int) -> str:
    """The questions on so many drawn paths, each with its design or why there is none."""
    found = []
    for seed in range(paths):
        trial = Recorder(seed)
        try:
            end = suggest(space, trial, backbone).to_dict()
        except SpecError as error:
            end = str(error)
        found.append([trial.calls, end])
    return digest(found)


@pytest.mark.parametrize("match", MATCHES)
def test_the_default_space_asks_as_before(match):
    assert asked(SearchSpace(match=match), BACKBONE, 300) == RECORDED[f"mixed {match}"]


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("method", built_in())
def test_every_method_asks_and_is_walked_as_before(method, match):
    space = SearchSpace(methods=(method,), match=match)
    assert asked(space, BACKBONE, 60) == RECORDED[f"{method} {match}"]
    walked = [[p, spec.to_dict()] for p, spec in itertools.islice(designs(space, BACKBONE), 40)]
    walked += [[spec.to_dict(), n] for spec, n in itertools.islice(shapes(space, BACKBONE), 40)]
    assert digest(walked) == RECORDED[f"{method} {match} walked"]


@pytest.mark.parametrize("name", ["demo.yaml", "full.yaml"])
def test_the_examples_ask_as_before(name):
    config = StudyConfig.load(EXAMPLES / name)
    assert asked(config.space, config.backbone, 200) == RECORDED[name]
    seen = itertools.islice(look(config.space, config.backbone), 200)
    assert digest([spec.to_dict() for spec in seen]) == RECORDED[f"{name} looked"]


@pytest.mark.parametrize("d_model", [16, 64, 128])
def test_presets_have_their_keys_labels_and_costs(d_model):
    backbone, found = Backbone(d_model=d_model, n_heads=2), []
    for name, preset in PRESETS.items():
        spec = preset(backbone)
        costs = (ffn_cost(spec, d_model), ffn_cost(spec, d_model, 0.3), model_cost(spec, backbone))
        said = [name, spec.key, spec.label, spec.to_dict(), *(cost.to_dict() for cost in costs)]
        found.append(said)
    assert digest(found) == RECORDED[f"presets {d_model}"]


def test_presets_lead_back_to_the_same_parameters():
    backbone = Backbone(d_model=128)
    found = [
        [name, params_of(SearchSpace(), preset(backbone), backbone)]
        for name, preset in PRESETS.items()
        if name != "deepseek_moe"
    ]
    assert digest(found) == RECORDED["presets back"]
