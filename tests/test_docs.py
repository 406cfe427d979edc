"""The documents are true: maps, keys, defaults, commands, links, examples."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import nas
from nas.command.cli import cli
from nas.config import StudyConfig
from nas.machines import Workers
from nas.search.objectives import OBJECTIVES
from nas.search.settings import Budget, Constraints, Repeats
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.corpus import CorpusSpec
from search_space.domain import Range
from search_space.methods import find, names
from search_space.space import SearchSpace
from search_space.spec import FFNSpec

ROOT = Path(__file__).parents[1]
CODE = ("search_space", "workers", "nas", "dashboard", "benchmarks", "examples", "docs", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text()
STUDY_FILE = (ROOT / "docs" / "study-file.md").read_text()

by_name = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def section(text: str, heading: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.S | re.M)
    assert found, f"no heading {heading!r}"
    return found.group(1)


# The map of the tree


def mapped_paths() -> list[str]:
    """The paths of the README's map, read by indentation."""
    paths: list[str] = []
    parents: list[str] = []
    for line in blocks(section(README, "The tree"), "text")[0].splitlines():
        indent, name = re.match(r"( *)(\S+)/ ", line).groups()
        parents[len(indent) // 2 :] = [name]
        paths.append("/".join(parents))
    return paths


def test_the_map_names_every_package_and_folder():
    ignored = {line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()}
    folders = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and any(path.iterdir()) and path.name not in ignored | {".git"}
        if not path.name.endswith((".egg-info", "_cache"))
    }
    packages = {
        str(path.parent.relative_to(ROOT))
        for package in ("search_space", "workers", "nas", "dashboard")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert sorted(mapped_paths()) == sorted(folders | packages)


# The study file


def plain(value: Any) -> Any:
    if isinstance(value, Range):
        return dataclasses.asdict(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def expected(field: dataclasses.Field) -> Any:
    """What the default column must say."""
    if field.default is not dataclasses.MISSING:
        return plain(field.default)
    if field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory()
    nested = dataclasses.is_dataclass(value) and not isinstance(value, Range)
    return "below" if nested else plain(value)


def documented(heading: str) -> dict[str, Any]:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.+) \|$", section(STUDY_FILE, heading), re.M)
    return {key: yaml.safe_load(default.strip("`")) for key, default, _ in rows}


HEADINGS = {
    "The study": StudyConfig,
    "budget": Budget,
    "budget.repeats": Repeats,
    "corpus": CorpusSpec,
    "backbone": Backbone,
    "recipe": Recipe,
    "space": SearchSpace,
    "constraints": Constraints,
    "workers": Workers,
    "A spec": FFNSpec,
    **{f"space.{method}": type(knobs) for method, knobs in SearchSpace().sections.items()},
    **{f"selection: {method}": find(method) for method in names()},
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_key_stands_with_its_default(heading):
    wanted = {field.name: expected(field) for field in dataclasses.fields(HEADINGS[heading])}
    if heading == "space":  # a method's section stands under the method's name
        del wanted["sections"]
        wanted |= dict.fromkeys(SearchSpace().sections, "below")
    assert documented(heading) == wanted


@pytest.mark.parametrize(
    "text",
    blocks(README, "yaml") + blocks(STUDY_FILE, "yaml"),
    ids=lambda text: text.split("\n")[0].strip(":"),
)
def test_every_yaml_example_is_a_legal_study(text):
    data = yaml.safe_load(text)
    StudyConfig.from_dict({"budget": {"trials": 8, "trial_flops": 1e12}} | data)


def test_every_objective_is_named():
    (row,) = re.findall(r"^\| `objectives` \|.*$", section(STUDY_FILE, "The study"), re.M)
    meaning = row.split("|")[3]
    assert set(re.findall(r"`(\w+)`", meaning)) == set(OBJECTIVES)


def test_every_environment_variable_is_documented():
    read = {
        name
        for package in ("search_space", "workers", "nas", "dashboard")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\b(?:FFN_NAS|NAS)_[A-Z]+\b", path.read_text())
    }
    documented_names = re.findall(r"^\| `([A-Z_]+)` \|", section(STUDY_FILE, "Environment"), re.M)
    assert read <= set(documented_names)


# Commands


def shown_commands(text: str) -> list[list[str]]:
    """The `nas ...` lines of shell blocks and of inline code, as words."""
    lines = "\n".join(blocks(text, "sh")).splitlines()
    lines += re.findall(r"`(nas [^`\n]*)`", text)
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nas ")]


@by_name
def test_every_command_and_option_exists(path):
    for words in shown_commands(path.read_text()):
        if words[0].startswith("-"):
            continue
        command = cli.commands.get(words[0])
        assert command is not None, f"nas {words[0]} does not exist"
        options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        unknown = {w for w in words[1:] if w.startswith("--")} - options - {"--help"}
        assert not unknown, f"nas {words[0]} has no {unknown}"


def test_the_readme_shows_every_command():
    shown = {words[0] for words in shown_commands(README)}
    assert set(cli.commands) <= shown


def test_the_readme_names_the_make_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)\b", "\n".join(re.findall(r"`[^`]*`", README))):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_python_example_uses_what_exists():
    names = {"nas": nas, "study": nas.Study}
    used = [
        (node.value.id, node.attr)
        for block in blocks(README, "python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    assert ("nas", "launch") in used
    for owner, attribute in used:
        if owner in names:
            assert hasattr(names[owner], attribute), f"{owner}.{attribute}"


@by_name
def test_every_python_example_parses(path):
    for block in blocks(path.read_text(), "python"):
        ast.parse(block)


# Links and paths


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@by_name
def test_no_relative_link_is_broken(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{path.name} links to {target}"


@by_name
def test_the_files_that_a_document_names_exist(path):
    named = re.findall(
        r"`((?:tests|docs|examples|workers|nas|search_space)/[\w/.]+)`", path.read_text()
    )
    for name in named:
        # Of a file that its reader writes, NAME.py or 000N_words.py, the folder is there.
        to_write = re.search(r"[A-Z]", Path(name).stem)
        there = (ROOT / name).parent if to_write else ROOT / name
        assert there.exists(), f"{path.name} names {name}"


def test_nothing_names_a_developers_machine():
    # Built from parts, or this file would name one.
    homes = re.compile("|".join(f"/{home}/[a-z]" for home in ("home", "Users", "root", "work")))
    kinds = {".py", ".md", ".yaml", ".toml", ".txt", ".mako", ""}
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.name != "LICENSE"]
    for path in files:
        if path.is_file() and path.suffix in kinds:
            found = homes.search(path.read_text())
            assert not found, f"{path.relative_to(ROOT)}: {found.group()}"
