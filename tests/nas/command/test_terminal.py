"""Output for every terminal: substitutes where it is ASCII, one line where it is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import WAIT_S

from nas.command.terminal import plain
from nas.store import Store
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

ROOT = str(Path(__file__).parents[3])
ASCII = (
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
)


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """A database with a finished trial, whose row has a plus-minus sign above it."""
    monkeypatch.chdir(tmp_path)
    with Store.open("sqlite:///nas.db") as store:
        study = store.create_study("first", {}, 0, 3e9, ["bits_per_byte", "active_flops"])
        spec = FFNSpec(d_ff=64)
        cost = model_cost(spec, Backbone()).to_dict()
        _, evaluation = store.add_trial(
            study.id, spec, seed=0, source="preset", params={}, until_flops=1e9, cost=cost
        )
        done = {"bits_per_byte": 2.25, "bits_per_byte_se": 0.5, "flops": 5e8}
        store.end_evaluation(EvalResult(evaluation=evaluation.id, status=Status.FINISHED, **done))


def nas(*arguments: str, code: str = "", stdout=subprocess.PIPE, **variables: str):
    unset = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8")
    known = {k: v for k, v in os.environ.items() if k not in unset}
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom nas.command.cli import main; main()", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=known | {"PYTHONPATH": ROOT} | variables,
        timeout=WAIT_S,
    )


@pytest.mark.parametrize("variables", ASCII, ids=["asked for", "by locale"])
def test_a_table_on_an_ascii_terminal(filled, variables):
    done = nas("pareto", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    heading, row = done.stdout.decode("ascii").splitlines()[:2]
    assert heading.split()[:6] == ["trial", "design", "bits", "per", "byte", "+/-"]
    assert heading.index("+/-") + 3 == row.index("0.5") + 3  # the column keeps its place


# Escaped, for Python itself reads its command line in the terminal's encoding.
SPEAK = r"""
import sys
from nas.command import cli
@cli.cli.command()
def speak():
    from nas.command.terminal import console, echo
    echo("\u00b11 \u00d7 \u00e9 \u2192 \u6f22 \udcff")
    echo("\u00b12", err=True)
    console().print("\u00b13 \u2501\u2501\u2578")
    console(stderr=True).print("\u00b14")
"""


@pytest.mark.parametrize("variables", ASCII, ids=["asked for", "by locale"])
def test_lines_and_consoles_on_both_streams(variables):
    done = nas("speak", code=SPEAK, **variables)
    assert done.returncode == 0
    assert done.stdout.decode("ascii").splitlines() == ["+/-1 x e -> ? ?", "+/-3 ---"]
    assert done.stderr.decode("ascii").splitlines() == ["+/-2", "+/-4"]


def test_a_terminal_that_has_them_gets_them():
    done = nas("speak", code=SPEAK, PYTHONIOENCODING="utf-8")
    assert done.stdout.decode().splitlines() == ["±1 × é → 漢 ?", "±3 ━━╸"]
    assert plain("±", "utf-8") == "±" and plain("±", "latin-1") == "±"
    assert plain("╭─╮ █", "ascii") == "+-+ #"


QUIET = SPEAK.replace(", err=True", "").replace("stderr=True", "")


def test_a_full_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = nas("speak", code=QUIET, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: ") and done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = nas("speak", code=QUIET, stdout=pipe)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["space"], ["list"], ["pareto"], ["presets", "--json"], ["--help"], ["--version"]],
)
def test_no_command_fails_as_its_reader_leaves(filled, arguments):
    """Some print once and some twice, by click or by rich."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = nas(*arguments, stdout=pipe)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_refusal_keeps_its_code_as_the_reader_leaves(filled):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = nas("show", "--trial", "9", stdout=pipe)
    assert done.returncode == 2 and done.stderr.startswith(b"Error: ")


def test_a_closed_output_is_no_error():
    done = nas("speak", code="import sys; sys.stdout = None\n" + QUIET)
    assert (done.returncode, done.stderr) == (0, b"")
