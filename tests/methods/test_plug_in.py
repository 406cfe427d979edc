"""A method from outside the packages goes the whole way: docs/extending.md in code."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest
import torch
import yaml
from depth import LONG
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.simulated_pool import SimulatedPool
from dashboard.data import kept
from nas.config import StudyConfig
from nas.models.bundle import bundle_sources
from nas.models.checkpoints import find_checkpoint
from nas.models.export import export_trial
from nas.running.launcher import launch_study
from nas.store import Store
from nas.views.pareto import pareto_data
from nas.views.style import colour, symbol
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import ffn_cost, step_flops
from search_space.errors import InputError
from search_space.methods import built_in, find, names
from search_space.space import SearchSpace, combinations, designs, params_of, suggest
from search_space.space.parameters import offered, when
from search_space.space.walk import Draw
from search_space.spec import FFNSpec
from workers.evaluate import evaluate
from workers.kernels.api.flops import custom_flops
from workers.layers.ffn import FFN

ROOT = Path(__file__).parents[2]
BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = {"d_ff": 64, "expert_width": 16, "selection": {"method": "first_k", "k": 2, "scale": 0.5}}
STUDY = {
    "name": "plug-in",
    "budget": {"trials": 3, "trial_flops": 2e7},
    "corpus": {"max_bytes": 600_000},
    "backbone": BACKBONE.to_dict(),
    "recipe": {"batch_size": 2, "warmup": 2},
    "space": {"methods": ["first_k"], "first_k": {"scale": [0.5, 1.0]}, "depth": 1},
    "warm_start": ["dense", SPEC],
    "workers": {"count": 1, "device": "cpu"},
    "eval_tokens": 256,
}

pytestmark = [pytest.mark.usefixtures("installed"), pytest.mark.slow]


def test_an_installed_package_is_found_by_its_entry_point():
    assert names() == (*built_in(), "first_k")
    assert find("first_k").__module__ == "first_k.home"


def test_a_space_has_it_when_it_is_named_and_only_then():
    assert SearchSpace().methods == built_in()
    assert "first_k" not in SearchSpace().to_dict()
    space = SearchSpace.from_dict({"methods": ["dense", "first_k"]})
    assert space.to_dict()["first_k"] == {"scale": {"low": 0.5, "high": 2.0, "log": True}}
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    with pytest.raises(InputError, match=r"space\.first_k.scale: scale must be a finite number"):
        SearchSpace.from_dict({"first_k": {"scale": [-1]}})


def test_it_is_asked_for_counted_and_found_again():
    space = SearchSpace(
        methods=("first_k",),
        depth=(1,),
        activation=("relu",),
        shared_width=(0,),
        placement="all",
        width_multiple=1,
    )
    asked = {p.name: when(space, p) for p in offered(space)}
    assert asked["first_k.scale"] == asked["granularity"] == "always"
    every = {spec.key for _, spec in designs(space, BACKBONE)}
    assert combinations(space, BACKBONE) == len(every) > 50
    for seed in range(20):
        spec = suggest(space, Draw(seed), BACKBONE)
        params = params_of(space, spec, BACKBONE)
        assert params["granularity"] == spec.selection.k
        assert FFNSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("changes", [{}, {"gated": True}, {"output_gate": True, "depth": 2}])
def test_its_price_is_what_torch_counts(changes):
    tokens, d_model = 3, 12
    spec = FFNSpec.from_dict(SPEC | changes)
    model = FFN(spec, d_model, vocab_size=8)
    x_TD = torch.randn(tokens, d_model, requires_grad=True)
    counted = FlopCounterMode(display=False, custom_mapping=custom_flops())
    with counted:
        y_TD, _ = model(x_TD, torch.zeros(tokens, dtype=torch.long))
    forward = counted.get_total_flops()
    with counted:
        y_TD.square().sum().backward()
    cost = ffn_cost(spec, d_model)
    assert forward == pytest.approx(cost.forward_flops * tokens)
    assert forward + counted.get_total_flops() == pytest.approx(cost.training_flops * tokens)
    assert cost.total_params == sum(p.numel() for p in model.parameters())


def test_a_layer_that_is_none_is_refused(monkeypatch):
    for place, message in {
        "first_k.home:FirstK": "first_k.home:FirstK, is not derived from .*Declared: got <class",
        "first_k.layer:Gone": "first_k.layer:Gone cannot be imported: .*; give module:Class",
    }.items():
        monkeypatch.setattr(find("first_k"), "layer", place)
        with pytest.raises(InputError, match=message):
            FFN(FFNSpec.from_dict(SPEC), 12, vocab_size=8)


def test_it_trains(small_corpus):
    losses, spec = [], FFNSpec.from_dict(SPEC)
    request = EvalRequest(
        evaluation=1,
        spec=spec,
        backbone=BACKBONE,
        recipe=Recipe(batch_size=4),
        corpus_dir=str(small_corpus.dir),
        until_flops=step_flops(spec, BACKBONE, 4) * 40.5,
        eval_tokens=256,
    )
    result = evaluate(request, lambda progress: losses.append(progress.loss))
    assert result.status is Status.FINISHED, result.error
    assert losses[-1] < losses[0] - 0.2
    assert result.activity == [pytest.approx(2 / 4)]


class Trains(SimulatedPool):
    """A pool that does its evaluations at once, in this process."""

    def __init__(self, corpus) -> None:
        super().__init__(1, lambda request: (1.0, [evaluate(request, lambda progress: None)]))
        self.corpus = corpus

    def prepare(self, *request):
        return super().prepare(*request) | {
            "dir": str(self.corpus.dir),
            "meta": self.corpus.meta,
        }


def test_a_study_searches_shows_and_exports_it(small_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        config = StudyConfig.from_dict(STUDY)
        study = launch_study(config, store, pool_factory=lambda config: Trains(small_corpus))
        trials = store.trials(study.id)
        assert [trial.spec.method for trial in trials] == ["dense", "first_k", "first_k"]
        assert {trial.status for trial in trials} == {Status.FINISHED}

        figure = go.Figure(pareto_data(study, trials))
        own = [trace for trace in figure.data if trace.name == "first_k" and trace.x]
        assert any(trace.showlegend for trace in own)
        marks = {(trace.marker.color, trace.marker.symbol) for trace in own}
        assert marks == {(colour("first_k"), symbol("first_k"))}
        assert marks.isdisjoint((colour(name), symbol(name)) for name in built_in())

        checkpoint = find_checkpoint(store, study, trials[1])
        folder = export_trial(checkpoint, study, trials[1], tmp_path / "model", verify=True)
    files = {path.name for path in folder.glob("*.py")}
    assert {"first_k_home.py", "first_k_layer.py"} <= files
    assert not any(name.startswith("search_space_methods_") for name in files)


def test_another_version_of_it_makes_the_dashboards_kept_columns_anew():
    """They hold what a design is called, which its method says."""
    code, home = kept._code.__wrapped__, Path(inspect.getfile(find("first_k")))
    before, text = code(), home.read_bytes()
    home.write_bytes(text + b"# another title")
    after = code()
    home.write_bytes(text)  # all tests here share it
    assert after != before == code()


def test_an_export_says_when_a_method_has_no_file():
    first_k = find("first_k")
    typed = dataclasses.make_dataclass("Typed", [], bases=(first_k,), frozen=True, kw_only=True)
    typed.__module__ = "__main__"
    with pytest.raises(InputError, match="__main__ is no module with a file; put the method into"):
        bundle_sources(typed)


@pytest.mark.parametrize(
    "line",
    ["import second.helper", "from second import helper", "from . import helper"],
)
def test_an_export_refuses_to_import_a_module(line, tmp_path, monkeypatch):
    """Its name there is another, so that the export would not load."""
    package = tmp_path / "second"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").touch()
    home = f"{line}\nfrom first_k.home import FirstK\n\nclass Second(FirstK):\n    pass\n"
    (package / "home.py").write_text(home)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        with pytest.raises(InputError, match=r"imports names, no modules: got second\.helper;"):
            bundle_sources(importlib.import_module("second.home").Second)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "second"]:
            del sys.modules[name]


@LONG
def test_the_command_launches_on_ray_and_exports(tmp_path):
    def nas(*arguments: str) -> str:
        command = [sys.executable, "-c", "from nas.command.cli import main; main()", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | {"warm_start": [SPEC]}))
    assert "3 of 3 trials finished" in nas("launch", "study.yaml")
    assert "first_k 2/4x16 gelu" in nas("show", "plug-in", "--trial", "0")
    nas("export", "plug-in", "--trial", "0", "--to", "model")
    assert (tmp_path / "model" / "first_k_layer.py").exists()


def test_the_document_shows_this_very_code():
    document = (ROOT / "docs" / "extending.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```", document, re.S | re.M)
    for name in ("home.py", "layer.py"):
        assert (Path(__file__).parent / "first_k" / name).read_text() in shown
