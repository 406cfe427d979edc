"""The floors: who may import whom, and what a light import must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_space", "workers", "nas", "dashboard")
HEAVY = {"torch", "triton", "ray"}
ALLOWED = {
    "search_space": set(),
    "workers": {"search_space"},
    "nas": {"search_space"},
    "dashboard": {
        "search_space",
        "nas.store",
        "nas.search.bounds",
        "nas.search.pareto",
        "nas.search.objectives",
        "nas.views",
        "nas.process.holder",  # the standard library alone
        # How sure a frontier is, kept from look to look and not worked out anew: a page asks for
        # the parts of `nas.views.certainty`. They import the standard library alone.
        "nas.search.chances",
        "nas.search.paired",
        "nas.search.seeds",
        # The page Launch makes its form of the schema of a study's file, and what is typed is read,
        # checked and priced as `nas launch` does it: the modules that do, loaded by that page.
        "nas.config",
        "nas.machines",
        "nas.warm_start",
        "nas.yaml_file",
        "nas.search.rungs",
        "nas.search.settings",
        # What `nas export` asks of a folder, asked while it is typed.
        "nas.models.new_folder",
    },
}
# The parts of nas, the lowest first: each imports itself and those below it.
PARTS = (
    *("process", "yaml_file", "machines", "base_model", "warm_start", "store", "search", "config"),
    *("models", "views", "running", "study", "command"),
)
# The places where nas reaches workers, inside functions.
REACHES_WORKERS = {
    "nas/running/ray_workers.py",
    "nas/running/ray_preparation.py",
    "nas/running/gpu_sharing.py",
    "nas/models/custom.py",
    "nas/models/scale.py",
    "nas/models/train.py",
    "nas/models/train_run.py",
    "nas/models/train_output.py",
    "nas/models/evaluate.py",
    "nas/models/cut.py",
    "nas/models/windows.py",
    "nas/models/native.py",
    "nas/models/reopen.py",
    "nas/models/forms.py",
    "nas/models/probe.py",
    "nas/models/verify.py",
    "nas/models/export.py",
}
OUTSIDE = {
    "search_space": HEAVY | {"optuna", "sqlalchemy", "numpy", "pandas", "yaml", "click"},
    "nas": {"streamlit"},
    "workers": {"optuna", "sqlalchemy", "streamlit"},
    "dashboard": HEAVY | {"optuna", "sqlalchemy"},
}


def modules():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path, top_level_only: bool = False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_its_floor_may(path):
    name = str(path.relative_to(ROOT))
    package = name.split("/")[0]
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in OUTSIDE[package], f"{name} imports {module}"
        if top not in PACKAGES or top == package:
            continue
        if package == "nas" and top == "workers":
            assert name in REACHES_WORKERS, f"{name} imports {module}"
            continue
        allowed = ALLOWED[package]
        fits = any(module == a or module.startswith(f"{a}.") for a in allowed)
        assert fits, f"{name} imports {module}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "nas").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_part_of_nas_imports_only_those_below_it(path):
    own = path.relative_to(ROOT / "nas").parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):  # the interface of Python, and of `python -m nas`
        return
    for module in imports(path):
        _, _, rest = module.partition("nas.")
        part = rest.split(".")[0]
        if module.split(".")[0] == "nas":
            assert part, f"{path} imports nas itself"
            assert PARTS.index(part) <= PARTS.index(own), f"{own} imports {module}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nas_and_search_space_load_nothing_heavy_at_import(path):
    if path.relative_to(ROOT).parts[0] == "workers":
        return
    heavy = {m.split(".")[0] for m in imports(path, top_level_only=True)} & (HEAVY | {"workers"})
    assert not heavy


@pytest.mark.parametrize(
    "code",
    [
        "import search_space.presets, search_space.space, search_space.cost, search_space.contract",
        "import nas, nas.store, nas.search.pareto, nas.config, nas.search.sampler",
        "import nas.running.driver, nas.study",
        "import dashboard.data.source, dashboard.data.reading",
        "from nas.command.cli import run; assert run(['--help']) == 0",
    ],
)
def test_light_imports_stay_light(code):
    check = f"import sys; {code}; print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_the_packages_are_all_listed():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for path in modules()
        if path.name == "__init__.py"
    }
    assert set(listed) == found
