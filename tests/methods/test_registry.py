"""The registry: who is found, in which order, and one line for each thing that is wrong."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from installing import install

from nas.views.style import colour, symbol
from search_space.backbone import Backbone
from search_space.design import Design, Method
from search_space.domain import Choices, Domain, Numbers
from search_space.errors import InputError, SpecError
from search_space.experts import FRAME, ExpertMethod
from search_space.methods import built_in, find, names, register
from search_space.methods.topk import TopK
from search_space.native import NoForm, native_form
from search_space.parameter import Condition, Knobs, asked, declared
from search_space.presets import PRESETS
from search_space.prices import Cost
from search_space.space import SearchSpace, look
from search_space.space.parameters import parameters_of
from search_space.spec import FFNSpec

ROOT = Path(__file__).parents[2]
HOMES = ROOT / "search_space" / "methods"


def made(name: str = "mine", bases: tuple[type, ...] = (ExpertMethod,), **changes) -> type:
    """A class with every part of a method, but for what `changes` says; None leaves it out."""

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        return Cost()

    asks = (*FRAME, "granularity", "expansion", "active_width")
    parts = {"method": name, "layer": "mine.layer:Mine", "asks": asks, "cost": cost} | changes
    body = {part: value for part, value in parts.items() if value is not None}
    cls = type(name.title(), bases, body | {"__module__": f"{name}.home"})
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


@pytest.fixture(autouse=True)
def fresh(registry):
    """Every test has a registry of its own."""


def test_the_order_of_this_projects_methods_is_that_of_stored_studies():
    order = "dense topk hash avgk direct product_key straight_through relu_routing"
    assert built_in() == names() == tuple(order.split())


def test_each_home_has_the_method_of_its_name():
    files = sorted(path.stem for path in HOMES.glob("*.py") if path.stem != "__init__")
    assert files == sorted(built_in())
    for name in built_in():
        assert find(name).__module__ == f"search_space.methods.{name}"
        assert find(name).layer.startswith(f"workers.layers.{name}:")
    assert len({find(name).order for name in built_in()}) == len(files)


def test_nothing_is_loaded_before_the_first_question():
    code = (
        "import sys, search_space.spec, search_space.space, search_space.cost\n"
        "loaded = [m for m in sys.modules if m.startswith('search_space.methods.')]\n"
        "assert not loaded, loaded\n"
        "search_space.spec.FFNSpec(d_ff=4)\n"
        "assert 'search_space.methods.topk' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def said(node: ast.AST) -> str:
    """A name or a text that stands in code; a docstring is no code."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return node.id
    return node.name if isinstance(node, ast.alias) else ""


# Texts and names that are a method's and something else, too.
ALSO = {
    "workers/corpus/build.py": {"hash"},  # of a corpus
    "nas/models/checkpoints.py": {"hash"},
    "nas/store/facts.py": {"hash"},
    "nas/running/resumption.py": {"hash"},
    "nas/models/evaluate.py": {"hash"},
    "nas/models/train_run.py": {"hash"},
    "nas/models/windows.py": {"hash"},
}


# Designs of papers, from nothing and of pretrained models.
PUBLISHED = {"search_space/presets.py", "search_space/cuts.py"}


def test_no_method_is_named_outside_its_home_its_layer_and_the_presets():
    own = {*built_in(), *(find(name).__name__ for name in built_in())}
    own |= {find(name).layer.split(":")[1] for name in built_in()}
    rooms = ("search_space/methods", "workers/layers")
    homes = {f"{room}/{name}.py" for room in rooms for name in built_in()}
    for package in ("search_space", "workers", "nas", "dashboard"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name in homes or name in PUBLISHED:
                continue
            if name.startswith("workers/kernels/"):  # operations have their own names
                continue
            found = {said(node) for node in ast.walk(ast.parse(path.read_text()))} & own
            assert found <= ALSO.get(name, set()), f"{name} names {found}"


def test_a_registered_method_comes_last_and_leads_to_designs():
    mine = register(made())
    assert names() == (*built_in(), "mine")
    assert find("mine") is mine
    spec = FFNSpec.from_dict({"d_ff": 8, "selection": "mine"})
    assert type(spec.selection) is mine
    assert SearchSpace(methods=("mine",)).methods == ("mine",)


def test_a_cell_that_runs_again_replaces_its_method():
    old = register(made())
    spec = FFNSpec(d_ff=8, selection=old())
    new = register(made())
    assert find("mine") is new is not old
    with pytest.raises(SpecError, match="selection must be a method's object"):
        dataclasses.replace(spec, d_ff=16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherKnobs(Knobs):
    method: ClassVar[str] = "other"


class BareKnobs(Knobs):
    method: ClassVar[str] = "mine"


LACKING = {
    "lacks `method`, its name, .*: got 'Mine!'": {"method": "Mine!"},
    "lacks `layer`, the place of its layer, `module:Class`: got None": {"layer": None},
    "lacks `layer`, .*: got 'mine.layer'": {"layer": "mine.layer"},
    "lacks `asks`, the names of the parameters .*: got 'depth'": {"asks": "depth"},
    "lacks `cost`, what its selection and experts cost": {"cost": None},
    "lacks `cost`, what its selection and experts cost: got 3": {"cost": 3},
    "lacks `plan`, a class method, the way from what a trial chose": {"bases": (Method,)},
    "lacks `plan`, a class method, the way .*: got <function": {"plan": lambda self, chosen: None},
    "lacks `knobs`, None, or a frozen dataclass of Knobs with the same `method`": {
        "knobs": OtherKnobs
    },
    "lacks `knobs`, None, or a frozen dataclass": {"knobs": BareKnobs},
    "lacks `when`, a mapping from names in its `asks` to a Condition each: got {'gated'": {
        "when": {"gated": "always"}
    },
    "lacks `when`, .*: got {'gatd'": {"when": {"gatd": Condition("never", lambda chosen: False)}},
}


@pytest.mark.parametrize("message", LACKING)
def test_a_method_that_lacks_a_part_is_refused_with_the_part(message):
    with pytest.raises(InputError, match=message) as caught:
        register(made(**LACKING[message]))
    assert "mine.home.Mine, registered in this process" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names() == built_in()


def test_what_is_no_method_is_refused():
    with pytest.raises(InputError, match=r"is no selection method: got .*; give a class derived"):
        register(object())
    bare = type("Bare", (ExpertMethod,), {"method": "bare", "__module__": "bare.home"})
    with pytest.raises(InputError, match="lacks `@dataclass`, with frozen=True"):
        register(bare)


def test_two_methods_of_one_name_are_refused_with_who_has_it():
    with pytest.raises(InputError, match=r"named 'topk': search_space.methods.topk has the name"):
        register(made("topk"))
    register(made())
    second = made()
    second.__module__ = "second.home"
    message = (
        r"'mine': mine.home.Mine, registered .* has the name, and second.home.Mine.* rename one"
    )
    with pytest.raises(InputError, match=message):
        register(second)


def test_an_entry_point_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    install(tmp_path, "broken", "gone = no_such_package.home:Gone")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = (
        "the entry point gone = no_such_package.home:Gone of the package broken 1.0 cannot be "
        "imported: ModuleNotFoundError: No module named 'no_such_package'; mend or uninstall it"
    )
    for _ in range(2):  # what failed once is not forgotten
        with pytest.raises(InputError, match=re.escape(message)):
            names()


@pytest.mark.parametrize("call", ["register(object)", "names()"])
def test_a_module_that_asks_while_it_is_looked_for_is_told_so(call, tmp_path, monkeypatch):
    install(tmp_path, "asking", "asking = asking_method:Method")
    code = f"from search_space.methods import names, register\n{call}\n"
    (tmp_path / "asking_method.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"asking_method:Method .* do neither when it is"):
        names()


def test_the_command_says_so_in_one_line(tmp_path, monkeypatch):
    install(tmp_path, "broken", "gone = no_such_package.home:Gone")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    command = [sys.executable, "-c", "from nas.command.cli import main; main()", "space"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "the entry point gone" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_method_that_asks_for_what_is_no_parameter_is_refused():
    register(made(asks=(*FRAME, "granularty")))
    with pytest.raises(InputError, match=r"asks for 'granularty', .*; did you mean 'granularity'"):
        parameters_of("mine")
    register(made("depth"))
    with pytest.raises(InputError, match="'depth' has the name of a space's field; rename it"):
        parameters_of("depth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MineKnobs(Knobs):
    method: ClassVar[str] = "mine"
    scale: Numbers = asked((1.0,), "a weight")


def test_what_a_method_plans_with_and_its_keys_must_be_asked_for():
    register(made(asks=(*FRAME, "expansion", "active_width")))
    with pytest.raises(InputError, match="'mine' plans with 'granularity', which it has not asked"):
        next(look(SearchSpace(methods=("mine",)), Backbone()))
    register(made(knobs=MineKnobs))
    with pytest.raises(InputError, match=r"'mine' has the key mine\.scale and never asks for it"):
        parameters_of("mine")


def test_a_parameter_may_be_annotated_by_the_types_themselves():
    def knobs(annotation):
        scale = asked((1.0,), "a weight")
        body = {"method": "mine", "__annotations__": {"scale": annotation}, "scale": scale}
        return dataclasses.dataclass(frozen=True, kw_only=True)(type("K", (Knobs,), body))

    kinds = [declared(knobs(kind))["scale"].kind for kind in (Choices, Numbers, Domain, "Domain")]
    assert kinds == ["Choices", "Numbers", "Domain", "Domain"]
    with pytest.raises(InputError, match="the parameter scale must be annotated Choices or"):
        knobs(float)()


def test_many_methods_have_a_mark_each():
    for i in range(40):
        register(made(f"mine{i}"))
    marks = [(colour(name), symbol(name)) for name in names()]
    assert len(set(marks)) == len(marks) == 48


def test_a_design_of_a_method_that_is_not_installed_says_which_are():
    with pytest.raises(SpecError, match="selection: unknown method 'first_k'"):
        FFNSpec.from_dict({"d_ff": 8, "selection": {"method": "first_k"}})


def test_every_preset_is_a_method_of_this_project():
    assert {preset(Backbone()).method for preset in PRESETS.values()} == set(built_in())


def test_a_method_that_derives_from_a_home_and_has_a_layer_of_its_own_has_no_native_form():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(TopK):
        method = "mine"
        layer = "mine.layer:Mine"
        asks = made().asks
        knobs = None

    mine = register(Mine)
    spec = FFNSpec(d_ff=64, expert_width=16, activation="silu", gated=True, selection=mine(k=2))
    form = native_form(spec, Backbone())
    assert isinstance(form, NoForm)
    assert form.why == "no class selects as mine does"
    assert form.nearest.selection == TopK(k=2, normalize=True)
