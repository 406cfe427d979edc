"""What a trial is asked, and the designs that come of it, are those of before: to the byte.

`data/asked.json` holds digests that were taken before methods had homes of their own, and before
designs had a placement. A sampler's proposals, and the parameters that stored studies hold, depend
on every name, order and choice; a parameter with one choice alone changes no proposal.
"""

from __future__ import annotations

import dataclasses
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
from search_space.spec import FFNSpec

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
RECORDED = json.loads((HERE / "data" / "asked.json").read_text())
BACKBONE = Backbone(d_model=64)
MATCHES = ("free", "active_flops", "total_params")


class Recorder:
    """A trial that picks by chance and notes every question but the one about placement."""

    def __init__(self, seed: int) -> None:
        self.rng, self.calls = random.Random(seed), []

    def suggest_categorical(self, name, choices):
        if name == "placement":
            assert list(choices) == ["all"]
            return "all"
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
    assert (
        asked(SearchSpace(match=match, placement="all"), BACKBONE, 300)
        == RECORDED[f"mixed {match}"]
    )


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("method", built_in())
def test_every_method_asks_and_is_walked_as_before(method, match):
    space = SearchSpace(methods=(method,), match=match, placement="all")
    assert asked(space, BACKBONE, 60) == RECORDED[f"{method} {match}"]
    walked = []
    for params, spec in itertools.islice(designs(space, BACKBONE), 40):
        assert params.pop("placement") == "all"
        walked.append([params, spec.to_dict()])
    walked += [[spec.to_dict(), n] for spec, n in itertools.islice(shapes(space, BACKBONE), 40)]
    assert digest(walked) == RECORDED[f"{method} {match} walked"]


@pytest.mark.parametrize("name", ["demo.yaml", "full.yaml"])
def test_the_examples_ask_as_before(name):
    config = StudyConfig.load(EXAMPLES / name)
    space = dataclasses.replace(config.space, placement="all")
    assert asked(space, config.backbone, 200) == RECORDED[name]
    seen = itertools.islice(look(space, config.backbone), 200)
    assert digest([spec.to_dict() for spec in seen]) == RECORDED[f"{name} looked"]


def everywhere(backbone: Backbone) -> dict[str, FFNSpec]:
    """The presets that are in all layers."""
    specs = {name: preset(backbone) for name, preset in PRESETS.items()}
    return {name: spec for name, spec in specs.items() if spec.placement == "all"}


@pytest.mark.parametrize("d_model", [16, 64, 128])
def test_presets_have_their_keys_labels_and_costs(d_model):
    backbone, found = Backbone(d_model=d_model, n_heads=2), []
    for name, spec in everywhere(backbone).items():
        costs = (ffn_cost(spec, d_model), ffn_cost(spec, d_model, 0.3), model_cost(spec, backbone))
        said = [name, spec.key, spec.label, spec.to_dict(), *(cost.to_dict() for cost in costs)]
        found.append(said)
    assert digest(found) == RECORDED[f"presets {d_model}"]


def test_presets_lead_back_to_the_same_parameters():
    backbone, found = Backbone(d_model=128), []
    for name, spec in everywhere(backbone).items():
        if name != "deepseek_moe":
            params = params_of(SearchSpace(), spec, backbone)
            assert params.pop("placement") == "all"
            found.append([name, params])
    assert digest(found) == RECORDED["presets back"]
