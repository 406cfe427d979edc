"""StudyConfig: what a YAML may say, and the one line that a wrong one gets."""

from __future__ import annotations

import json
import os
import time

import pytest

from nas.config import StudyConfig
from nas.search.settings import Budget, Constraints
from nas.yaml_file import read_yaml
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError
from search_space.space import SearchSpace
from search_space.spec import FFNSpec

FULL = """
name: small
seed: 7
corpus: {source: stdlib, max_bytes: 1e6}
backbone: {d_model: 64, n_layers: 2, n_heads: 2, seq_len: 64, rope_theta: 1e4}
recipe: {batch_size: 4, lr: 1e-3}
space:
  methods: [dense, topk]
  topk:
    balance_weight: {low: 1e-3, high: 1e-1, log: true}
objectives: [bits_per_byte, active_flops, total_params]
constraints: {active_flops: 2, total_params: 20}
budget: {trials: 1e1, trial_flops: 1e12, flops: 5e12}
warm_start:
  - dense
  - switch
  - {d_ff: 256, expert_width: 64, selection: hash}
sampler: nsga2
workers: {count: 2, device: cpu}
eval_tokens: 4_096
"""


def written(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def minimal(**changes):
    return StudyConfig.from_dict({"budget": {"trials": 2, "trial_flops": 1e12}} | changes)


def test_yaml_to_config_and_back(tmp_path):
    config = StudyConfig.load(written(tmp_path, FULL))
    assert (config.name, config.seed, config.sampler) == ("small", 7, "nsga2")
    assert config.corpus.max_bytes == 1_000_000
    assert config.backbone.rope_theta == 10_000
    assert config.recipe.lr == 0.001
    assert config.budget == Budget(trials=10, trial_flops=1e12, flops=5e12)
    assert config.space.domains["topk.balance_weight"].low == 0.001
    assert config.workers.device == "cpu"
    assert config.eval_tokens == 4096
    assert [name for name, _ in config.warm_start_specs()][:2] == ["dense", "switch"]
    assert config.warm_start_specs()[2][1].method == "hash"
    assert StudyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_budget_is_all_that_must_be_given():
    config = minimal()
    assert config.objectives == ("bits_per_byte", "active_flops")
    assert config.total_flops == 2e12
    assert config.space == SearchSpace()


def test_texts_that_look_like_numbers_stay_texts():
    config = minimal(corpus={"source": "1e5"}, name="1e5")
    assert (config.corpus.source, config.name) == ("1e5", "1e5")


def test_limits_are_ratios_of_the_dense_model():
    config = minimal(constraints={"active_flops": 1.5})
    dense = model_cost(FFNSpec(d_ff=512), config.backbone)
    assert config.limits() == {"active_flops": 1.5 * dense.active_flops}
    wide = FFNSpec(d_ff=1024)
    violation = config.constraints.violations(wide, config.backbone)["active_flops"]
    expected = model_cost(wide, config.backbone).active_flops / (1.5 * dense.active_flops) - 1
    assert violation == pytest.approx(expected)
    at_limit = Constraints(active_flops=1).violations(FFNSpec(d_ff=512), config.backbone)
    assert at_limit == {"active_flops": 0}


def test_the_tokenizers_vocabulary_replaces_the_one_asked_for():
    assert minimal().with_vocab_size(300).backbone.vocab_size == 300


def test_the_smallest_step_must_fit_the_budget():
    space = {"methods": ["dense"], "active_width": [0.5, 1], "depth": [1], "gated": [False]}
    backbone = minimal().backbone
    step = step_flops(FFNSpec(d_ff=256), backbone, batch_size=8)
    assert minimal(space=space, budget={"trials": 1, "trial_flops": step})
    with pytest.raises(InputError, match="below one training step") as caught:
        minimal(space=space, budget={"trials": 1, "trial_flops": 0.99 * step})
    assert f"{step:.3g} FLOPs (8 x 128 tokens)" in str(caught.value)


def test_a_cheaper_warm_start_is_the_smallest_design():
    tiny = {"d_ff": 4}
    step = step_flops(FFNSpec(d_ff=4), minimal().backbone, batch_size=8)
    assert minimal(warm_start=[tiny], budget={"trials": 1, "trial_flops": step})


BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 3)}]\n" for n in range(1, 40)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
FILES = {
    "study.yaml is empty": "",
    r"study.yaml:2 is not valid YAML": "name: a\n  b: [1\n",
    "study.yaml:3 is not valid YAML: key 'seed' is given twice": "seed: 1\nname: a\nseed: 2\n",
    "study.yaml:2 is not valid YAML: key 'k' is given twice": "space:\n  topk: {k: 1, k: 2}\n",
    "holds a list, not a mapping": "- name: a\n",
    "holds a str, not a mapping": "just text\n",
    "study.yaml: study: unknown key 'budgets'; did you mean 'budget'": "budgets: {trials: 1}\n",
    "study.yaml:3 is not valid YAML: keys are text": "name: a\nspace:\n  ? [a, b]\n  : 1\n",
    "study.yaml: keys are text: got 1; put it in quotes": "1: a\n",
    "study.yaml:11 is not valid YAML: more than 100,000 values": BOMB,
    "study.yaml:6 is not valid YAML: more than 100,000 values": MERGES,
    "study.yaml:1 is not valid YAML: nested more than 64 levels deep": "a: " + "[" * 100_000,
    "study.yaml:65 is not valid YAML: nested more than 64": "".join(
        f"{' ' * level}a:\n" for level in range(900)
    ),
    r"study.yaml:1 is not valid YAML: \*a stands inside what it names": "name: &a [*a]\n",
    "no anchor &b stands before": "name: *b\n",
    "tags such as !!int are not read": "seed: !!int ''\n",
    "tags such as !!set": "name: !!set {a}\n",
    "a text has at most 10,000 characters": f"name: {'x' * 10_001}\n",
    "study.yaml has more than 1,048,576 bytes": "# comment\n" * 120_000,
    "study.yaml: name: values are text, .* got a date; put text in quotes": "name: 2001-01-01\n",
    "study.yaml:2 is not valid YAML: '2001-99-99' is written as a date": "a: 1\nb: 2001-99-99\n",
    "study.yaml:1 is not valid YAML: '999.*' is written as a date or a number": f"a: {'9' * 5_000}",
    "study.yaml: seed: a whole number has at most 64 bits": f"seed: {'9' * 40}\n",
    "study.yaml: seed: a number must be finite: got inf": "seed: .inf\n",
    r"study.yaml:2 is not valid YAML: the character '\\x07' may not stand": "a: 1\nb: \x07\n",
    "study.yaml: name: text holds no NUL": 'name: "\\0"\n',
    "is not valid YAML": "name: !!python/object/apply:os.getcwd []\n",
}


@pytest.mark.parametrize("message", FILES)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path, message):
    with pytest.raises(InputError, match=message) as caught:
        StudyConfig.load(written(tmp_path, FILES[message]))
    assert str(caught.value).startswith(str(tmp_path / "study.yaml"))
    assert "\n" not in str(caught.value)


def test_anchors_merges_and_marks_are_read(tmp_path):
    text = """budget: &b {trials: 2, trial_flops: 1e13}
workers: {count: 1}
space:
  topk: {balance_weight: &r {low: 0.0, high: 0.1}, z_weight: {<<: *r, high: 0.01}}
  depth: [&one 1, 2]
  granularity: *one
"""
    path = written(tmp_path, "\ufeff" + text)
    space = StudyConfig.load(path).space
    z_weight = space.domains["topk.z_weight"]
    assert (z_weight.low, z_weight.high) == (0, 0.01)
    assert space.granularity == (1,)
    assert StudyConfig.load(path) == StudyConfig.load(written(tmp_path, text))


def test_a_merge_met_before_its_own_mapping_is_no_double_key(tmp_path):
    path = written(tmp_path, "p: {q: &q {<<: {x: 1}, x: 2}}\nr: {<<: *q}\n")
    assert read_yaml(path) == {"p": {"q": {"x": 2}}, "r": {"x": 2}}


def test_files_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="it is a pipe, a device or a socket"):
            StudyConfig.load(odd)
    with pytest.raises(InputError, match=r"cannot read .*none.yaml: No such file"):
        StudyConfig.load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"cannot read .*directory"):
        StudyConfig.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text in UTF-8"):
        StudyConfig.load(tmp_path / "binary")


REFUSED = {
    "recipe: unknown key 'learning_rate'": {"recipe": {"learning_rate": 1}},
    "workers: unknown key 'thread'; did you mean 'threads'": {"workers": {"thread": 1}},
    "workers is a mapping": {"workers": 4},
    "budget needs trial_flops": {"budget": {"trials": 3}},
    "budget.trials must be a whole number of at least 1: got 0": {
        "budget": {"trials": 0, "trial_flops": 1e12}
    },
    "budget.trial_flops must be above 0: got 'many'": {
        "budget": {"trials": 1, "trial_flops": "many"}
    },
    "budget.flops 1e\\+11 does not pay for one trial": {
        "budget": {"trials": 1, "trial_flops": 1e12, "flops": 1e11}
    },
    "budget.rungs must be a whole number of at least 1: got 0": {
        "budget": {"trials": 1, "trial_flops": 1e12, "rungs": 0}
    },
    "budget.reduction must be above 1: got 1": {
        "budget": {"trials": 1, "trial_flops": 1e12, "reduction": 1}
    },
    "budget.repeats.share is a share of the study's FLOPs, at most 0.9": {
        "budget": {"trials": 1, "trial_flops": 1e12, "repeats": {"share": 0.95}}
    },
    "budget.repeats.seeds must be a whole number of at least 2: got 1": {
        "budget": {"trials": 1, "trial_flops": 1e12, "repeats": {"share": 0.1, "seeds": 1}}
    },
    "the lowest rung must be at least 50 training steps of the dearest design": {
        "budget": {"trials": 1, "trial_flops": 1e12, "rungs": 5}
    },
    "recipe.warmup is a whole number of steps: got 0.02": {"recipe": {"warmup": 0.02}},
    "recipe.decay is a share of the FLOPs up to a rung, at most 1": {"recipe": {"decay": 1.5}},
    "objectives: the first must be bits_per_byte": {"objectives": ["active_flops"]},
    "unknown objective 'activ_flops'; did you mean 'active_flops'": {
        "objectives": ["bits_per_byte", "activ_flops"]
    },
    "objectives: bits_per_byte is given twice": {"objectives": ["bits_per_byte"] * 2},
    "objectives is a list": {"objectives": "bits_per_byte"},
    "constraints: unknown key 'flops'": {"constraints": {"flops": 1}},
    "constraints.active_flops must be above 0": {"constraints": {"active_flops": 0}},
    "constraints: no design of the space keeps them": {"constraints": {"total_params": 0.1}},
    "warm_start: no preset is named 'swich'; did you mean 'switch'": {"warm_start": ["swich"]},
    "warm_start: expert_width must divide": {"warm_start": [{"d_ff": 100, "expert_width": 7}]},
    "warm_start: switch breaks a constraint: total_params is": {
        "warm_start": ["dense", "switch"],
        "constraints": {"total_params": 2},
    },
    "warm_start: dense 1x512 gelu and dense are the same design": {
        "warm_start": ["dense", {"d_ff": 512}]
    },
    "sampler: unknown value 'tpr'; did you mean 'tpe'": {"sampler": "tpr"},
    "workers.device: unknown value 'gpu'": {"workers": {"device": "gpu"}},
    "workers.state_url must name one place for all workers": {"workers": {"state_url": "states"}},
    "workers.device: cuda needs gpus_per_trial above 0": {
        "workers": {"device": "cuda", "gpus_per_trial": 0}
    },
    "would reserve GPUs that device: cpu does not use": {
        "workers": {"device": "cpu", "gpus_per_trial": 1}
    },
    "eval_tokens must be a whole number of at least one sequence, 128": {"eval_tokens": 100},
    "a study's name has": {"name": "../up"},
    "seed must be a whole number": {"seed": -1},
    r"space.methods: unknown method \['dense'\]": {"space": {"methods": [["dense"]]}},
    "space.methods: unknown method {'a': 1}": {"space": {"methods": [{"a": 1}]}},
    r"warm_start: selection: unknown method \['topk'\]": {
        "warm_start": [{"d_ff": 64, "selection": {"method": ["topk"]}}]
    },
    "warm_start: spec: unknown key 'dff'": {"warm_start": [{"dff": 64}]},
    r"warm_start: no preset is named \['dense'\]": {"warm_start": [["dense"]]},
    "warm_start has 1,001 designs": {"warm_start": ["dense"] * 1_001},
    r"sampler: unknown value \['tpe'\]": {"sampler": ["tpe"]},
    r"unknown objective \['active_flops'\]": {"objectives": ["bits_per_byte", ["active_flops"]]},
    "study: a.b: values are text": {"a": {"b": {1, 2}}},
    "^backbone.rope_theta must be a finite number of at most 1e": {
        "backbone": {"rope_theta": 1e40}
    },
    "^recipe.batch_size must be a whole number of at least 1: got True": {
        "recipe": {"batch_size": True}
    },
    "^recipe.warmup is a whole number": {"recipe": {"warmup": 0.5}},
    "^corpus: max_bytes must be": {"corpus": {"max_bytes": -1}},
    "^recipe.lr must be above 0, or auto: got '1e400x'": {"recipe": {"lr": "1e400x"}},
    "^recipe.lr must be a finite number of at most 1e": {"recipe": {"lr": "1e400"}},
    "^recipe.decay must be a finite number of at least 0: got None": {"recipe": {"decay": None}},
    "^backbone.d_model must be at most 65,536: got 65538": {"backbone": {"d_model": 65_538}},
    "budget.trials must be at most 1,000,000": {
        "budget": {"trials": 10_000_000, "trial_flops": 1e12}
    },
    "space.expansion has 101 choices, at most 100": {
        "space": {"expansion": [1 + n / 100 for n in range(1, 102)]}
    },
    "space: no combination is a legal design": {
        "space": {"methods": ["hash"], "width_multiple": 333, "granularity": [8]}
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_one_line_with_the_rule(message):
    changes = {"space": {"methods": ["dense", "topk"]}} | REFUSED[message]
    with pytest.raises(InputError, match=message) as caught:
        minimal(**changes)
    assert "\n" not in str(caught.value)


def test_an_impossible_space_is_refused_in_a_bounded_time():
    many = [1 + n / 3 for n in range(1, 100)]
    space = {
        "methods": ["dense", "topk", "hash", "avgk", "straight_through", "relu_routing"],
        "match": "active_flops",
        "expansion": many,
        "granularity": list(range(1, 100)),
        "depth": list(range(1, 100)),
        "shared_width": [n / 100 for n in range(100)],
        "width_multiple": 99_999,
    }
    began = time.monotonic()
    with pytest.raises(InputError, match="space: no combination is a legal design"):
        minimal(space=space)
    assert time.monotonic() - began < 15  # seconds; visiting every combination takes days


@pytest.mark.parametrize("share", [0.0, 0.15, 0.3])
@pytest.mark.parametrize("trial_flops", [2.17e12, 2.6e12, 7e12 / 3])
def test_the_least_budget_that_a_refusal_names_is_enough(trial_flops, share):
    def study(flops):
        budget = {"trials": 5, "trial_flops": trial_flops, "flops": flops, "rungs": 2}
        minimal(space={"methods": ["dense"]}, budget=budget | {"repeats": {"share": share}})

    with pytest.raises(InputError, match="does not pay for one trial") as caught:
        study(1e10)
    least = float(str(caught.value).partition("which takes ")[2].partition(" ")[0])
    study(least)


def test_no_budget_is_refused():
    with pytest.raises(InputError, match="a study needs budget"):
        StudyConfig.from_dict({"name": "a"})
