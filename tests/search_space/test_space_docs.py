"""Every knob is searched, documented and printed; the example with all of them is a study."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from nas.command import tables
from nas.command.cli import run
from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.domain import words
from search_space.methods import find, names
from search_space.presets import PRESETS
from search_space.space import SearchSpace, combinations
from search_space.space.parameters import every_parameter, offered, when
from search_space.spec import FFNSpec

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "space.md").read_text()
FULL = ROOT / "examples" / "full.yaml"
NAMES = {parameter.name for parameter in every_parameter()}
SECTIONS = SearchSpace().sections
# Fields of a spec that follow from others: the ratios, and k = granularity or the active width.
DERIVED = {"d_ff", "selection", "expert_width"}
DERIVED |= {f"{method}.k" for method in ("topk", "hash", "avgk", "direct")}
DERIVED |= {"relu_routing.target_activity"}


def test_every_field_of_a_space_is_a_parameter():
    kinds = ("Choices", "Numbers", "Domain")
    fields = {f.name for f in dataclasses.fields(SearchSpace) if f.type in kinds} - {"methods"}
    for method, knobs in SECTIONS.items():
        fields |= {f"{method}.{f.name}" for f in dataclasses.fields(knobs)}
    assert fields | {"method"} == NAMES


def test_every_field_of_a_spec_is_searched_or_follows():
    fields = {f.name for f in dataclasses.fields(FFNSpec)}
    for method in names():
        fields |= {f"{method}.{f.name}" for f in dataclasses.fields(find(method))}
    assert fields - NAMES == DERIVED


@pytest.mark.parametrize("parameter", every_parameter(), ids=lambda p: p.name)
def test_the_document_has_every_parameter_as_it_is(parameter):
    space = SearchSpace()
    choices = words(space.domains[parameter.name])
    row = f"| `{parameter.name}` | {parameter.meaning} | {choices} | {when(space, parameter)} |"
    assert row in DOCUMENT.splitlines()


def test_the_full_example_has_every_method_and_preset():
    config = StudyConfig.load(FULL)
    assert config.space == SearchSpace()
    assert config.space.methods == names()
    assert set(config.warm_start) == set(PRESETS)


def test_the_command_prints_every_parameter_and_count(capsys, monkeypatch):
    monkeypatch.setattr(tables, "COUNT_SECONDS", 300.0)  # other tests may have the machine
    start = time.process_time()
    assert run(["space"]) == 0
    assert time.process_time() - start < 20
    lines = capsys.readouterr().out.splitlines()
    offers = {parameter.name for parameter in offered(SearchSpace())}
    assert {line.split()[0] for line in lines if line} >= offers | set(names()) | {"total"}
    (total,) = (line for line in lines if line.startswith("total"))
    assert total.split()[1:] == [f"{combinations(SearchSpace(), Backbone()):,}", "exact"]


def test_the_command_reads_a_studys_file(capsys, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "budget: {trials: 1, trial_flops: 1e12}\n"
        "backbone: {d_model: 32, n_heads: 2}\n"
        "space: {methods: [dense], output_gate: false, depth: 1, placement: all, "
        "active_width: [1, 2]}\n"
    )
    assert run(["space", str(study), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["d_model"], record["reference_d_ff"], record["match"]) == (32, 128, "free")
    assert record["counts"] == [{"method": "dense", "designs": 12, "complete": True}]
    asked = {row["parameter"]: row["choices"] for row in record["parameters"]}
    assert asked["active_width"] == "1, 2"
    assert "topk.gate" not in asked


def test_the_command_says_when_a_count_is_a_lower_bound(capsys, monkeypatch):
    monkeypatch.setattr(tables, "COUNT_SECONDS", 0.0)
    assert run(["space"]) == 0
    out = capsys.readouterr().out
    assert out.count("at least") == 1 + len(names())
    assert "the count was stopped after 0 seconds" in out


def test_a_missing_file_is_the_users_to_mend(capsys):
    assert run(["space", "none.yaml"]) == 2
    assert "none.yaml" in capsys.readouterr().err
