"""The launch form: what is typed is what `nas launch` reads, and what is wrong stands beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dashboard.actions.forecast import duration, forecast, measured_rate
from dashboard.actions.study_form import (
    COMMON,
    START,
    check,
    entries,
    from_yaml,
    label_of,
    of_stored,
    rules,
    sections,
    to_data,
    to_yaml,
    warm_starts,
)
from nas.config import StudyConfig
from nas.machines import this_machine
from nas.store import Facts, Store
from nas.store.tallies import Speed
from nas.yaml_file import parse_yaml
from search_space.contract import TRAINING
from search_space.errors import InputError
from search_space.presets import PRESETS

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*.yaml"))
SMALL = {
    "budget": {"trials": 9, "trial_flops": 9e12, "rungs": 2, "repeats": {"share": 0.1}},
    "space": {"methods": ["dense"], "depth": 1},
}
KEYS = {each.key: each for each in entries()}


def test_every_key_of_a_study_has_a_field_and_a_meaning():
    whole = StudyConfig.from_dict(SMALL).to_dict()

    def leaves(data, path=()):
        for key, value in data.items():
            here = (*path, key)
            known = any(each.path == here for each in entries())
            assert known or isinstance(value, dict), here
            if not known:
                leaves(value, here)

    leaves(whole)
    assert all(each.meaning for each in entries())
    assert {each.path for each in entries()} >= set(COMMON)
    shown = {e.path for own in sections().values() for e in own} | set(COMMON)
    assert shown == {each.path for each in entries()}
    assert KEYS["budget.trials"].needed and KEYS["budget.trial_flops"].needed
    assert sum(each.needed for each in entries()) == 2
    assert KEYS["space.topk.gate"].options == ("softmax", "sigmoid")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_a_file_says_is_what_the_form_says(path):
    values = from_yaml(path.read_text(), path.name)
    text = to_yaml(values)
    # What `nas launch` would read, of the file and of the form.
    assert StudyConfig.from_dict(parse_yaml(text, "form")) == StudyConfig.load(path)
    assert to_yaml(from_yaml(text, "form")) == text


def test_a_stored_study_can_be_launched_again():
    config = StudyConfig.from_dict(
        SMALL | {"space": SMALL["space"] | {"lr_multiplier": {"low": 0.5, "high": 1}}}
    )
    values = of_stored("tiny", config.to_dict())
    assert check(to_yaml(values))[0] == config
    base = {"backbone": {"base": {"model": "m"}, "seq_len": 64, "d_model": 8}, "base_model": "m"}
    cut = of_stored("cut", base | {"corpus": {"tokenizer": "m", "source": "stdlib"}})
    assert to_data(cut) == {"base_model": "m", "backbone": {"seq_len": 64}}
    with pytest.raises(InputError, match="study old: study: unknown key 'bugdet'; did you mean"):
        of_stored("old", {"bugdet": {}, "other": 1, "budget": {"trials": 1}} | {"bugdet": 1})


def test_a_new_form_holds_a_study_that_can_be_launched():
    config, why = check(to_yaml(START))
    assert why == ""
    assert config is not None and config.budget.trials == 24
    assert check(to_yaml({})) == (
        None,
        "a study needs budget, with trials and trial_flops: none given",
    )


def test_every_field_wrong_is_said_of_every_field():
    """Each holds what its own rules refuse; what any text may be is left out."""
    wrong = {}
    for each in entries():
        if each.kind == "words":
            wrong[each.path] = ["no-such-word"]
        elif each.kind != "text":
            wrong[each.path] = "no-such-word" if each.kind != "list" else "{low: 1}"
    wrong[("name",)] = "-no name-"
    wrong[("corpus", "source")] = "https://me:secret@example.com/a.txt"
    wrong[("workers", "state_url")] = "here"
    config, why = check(to_yaml(wrong))
    assert config is None and why
    said = rules(wrong)
    elsewhere = {("kind",), ("warm_start",)}  # which the whole form is needed for
    assert set(wrong) - set(said) - elsewhere == set()
    assert "secret" not in " ".join(said.values())
    assert said[("budget", "trials")] == (
        "budget.trials must be a whole number of at least 1: got 'no-such-word'"
    )
    assert all("\n" not in text for text in said.values())


def test_a_rule_is_not_said_of_what_is_right():
    values = START | {("backbone", "n_heads"): "3", ("recipe", "lr"): "auto"}
    assert rules(values) == {
        (
            "backbone",
            "n_heads",
        ): "backbone.d_model must be a multiple of 2 * n_heads (rotary pairs): "
        "128 is not a multiple of 6"
    }
    assert rules(values | {("backbone", "n_heads"): "2"}) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "f.yaml:2 is not valid YAML"),
        ("- 1", "f.yaml holds a list, not a mapping"),
        ("", "f.yaml is empty"),
        ("budget: 3", "f.yaml: budget is a mapping: got 3"),
        ("budget: {trails: 3}", "f.yaml: budget: unknown key 'trails'; did you mean 'trials'?"),
        ("space: {tokp: {}}", "f.yaml: space: unknown key 'tokp'; did you mean 'topk'?"),
        ("a: !!python/object:os.system x", "tags such as"),
    ],
)
def test_a_file_that_is_none_is_a_sentence(text, said):
    with pytest.raises(InputError) as error:
        from_yaml(text, "f.yaml")
    assert said in str(error.value)


def test_presets_are_warm_starts_as_published_and_at_equal_cost():
    words = warm_starts("pretrain")
    assert set(PRESETS) <= set(words)
    typed = next(each for each in words if each.startswith("{") and "olmoe" in each)
    config, _ = check(to_yaml(START | {("warm_start",): ["dense", typed]}))
    assert config is not None and len(config.warm_start) == 2
    assert "active_flops" in label_of(typed)
    assert label_of('{"d_ff": 64}') == "dense 1x64 gelu"
    assert label_of("a: b") == "a: b"


def test_the_forecast_is_the_plan_in_numbers():
    config = StudyConfig.from_dict(SMALL | {"warm_start": ["dense"]})
    found = forecast(config, None)
    assert found.flops == config.total_flops
    assert found.levels == config.plan().levels
    assert found.runs == (9, 1 + 8 / 3)
    assert found.seconds is None
    budget = dataclasses.replace(config.budget, flops=config.total_flops / 2)
    half = forecast(dataclasses.replace(config, budget=budget), None)
    assert half.runs == (4, 2)


def test_the_time_is_that_of_the_nearest_study_on_this_machine(tmp_path):
    config = StudyConfig.from_dict(SMALL | {"workers": {"count": 3}})
    small = {"backbone": {"d_model": 64}}
    rows = [  # its configuration, machine, training
        (small, this_machine(), TRAINING),
        ({}, this_machine(), TRAINING),
        ({}, "another machine", TRAINING),
        ({}, this_machine(), None),
        ({"workers": {"threads": 2}}, this_machine(), TRAINING),
        ({"backbone": {"d_model": "?"}}, this_machine(), TRAINING),
    ]
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        for i, (given, machine, training) in enumerate(rows):
            facts = Facts(machine=machine, training=training)
            store.create_study(f"s{i}", given, 0, 1e9, ["bits_per_byte"], facts=facts)
        studies = store.studies()
    speeds = {study.id: Speed(1e12 * study.id, 10.0, 4) for study in studies}
    rate = measured_rate(config, studies, speeds)
    assert rate is not None
    assert (rate.study, rate.ratio, rate.alike) == ("s1", 1.0, True)
    assert rate.flops_a_second == 2e11
    assert forecast(config, rate).seconds == pytest.approx(config.total_flops / 2e11 / 3)
    far = measured_rate(config, [s for s in studies if s.name == "s0"], speeds)
    assert far is not None and far.study == "s0" and far.ratio > 1
    assert measured_rate(config, studies, {}) is None


def test_durations_are_for_people():
    said = [duration(seconds) for seconds in (0.2, 75, 600, 9000, 198_000)]
    assert said == ["1 s", "75 s", "10 min", "2 h 30 min", "2 d 7 h"]
