"""What `nas resume`, `stop` and `extend` refuse: one line, exit code 2, nothing changed."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from command_tools import (
    RUNGS,
    FakePool,
    contents,
    stops_after,
    the_error,
    trains,
    write_corpus,
    write_study,
)

import nas as product
from nas.process.holder import new_owner
from nas.store import Store
from search_space.contract import TRAINING
from search_space.errors import InputError

pytestmark = pytest.mark.slow

EXTEND = ["extend", "tiny", "--flops", "1e9"]
PREPARING = 2  # lines: workers start, and the corpus is prepared


@pytest.fixture(scope="module")
def stash(tmp_path_factory):
    """Where a study that several tests begin with is kept."""
    return tmp_path_factory.mktemp("stash")


@pytest.fixture
def stopped(nas, in_process, folder, stash):
    """A study that was stopped with runs that may go on; it would be resumed well."""
    if not (stash / "stopped").exists():
        in_process(stops_after(5))
        assert nas("launch", write_study(budget=RUNGS)).code == 130
        shutil.copytree(folder, stash / "stopped")
    shutil.copytree(stash / "stopped", folder, dirs_exist_ok=True)
    in_process(trains)


@pytest.fixture
def finished(nas, in_process, folder, stash):
    in_process(trains)
    if not (stash / "finished").exists():
        assert nas("launch", write_study()).code == 0
        shutil.copytree(folder, stash / "finished")
    shutil.copytree(stash / "finished", folder, dirs_exist_ok=True)


@pytest.fixture
def refused(nas):
    """refused(*arguments): the one line, of a command that changed nothing."""

    def call(*arguments, preparing=0):
        before = contents()
        error = the_error(nas(*arguments), preparing=preparing)
        assert contents() == before
        return error

    return call


@pytest.fixture
def tamper():
    """tamper(sql): the database is changed behind the store's back."""

    def change(sql):
        with sqlite3.connect("nas.db") as connection:
            connection.execute(sql)
        connection.close()

    return change


def test_a_finished_study_is_not_resumed(finished, refused):
    error = refused("resume", "tiny")
    assert error == ("study 'tiny' is finished; give it more with: nas extend tiny --flops F")


@pytest.mark.parametrize(
    "words", [["resume", "tony"], ["stop", "tony"], ["extend", "tony", *EXTEND[2:]]]
)
def test_an_unknown_study(finished, refused, words):
    assert refused(*words) == "no study named 'tony'; did you mean 'tiny'?"


@pytest.mark.parametrize(
    "words", [["resume"], ["resume", "x"], ["stop", "x"], ["extend", "x", *EXTEND[2:]]]
)
def test_no_database(nas, folder, words):
    assert "no studies at nas.db yet" in the_error(nas(*words))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("words", [["resume", "tiny"], EXTEND], ids=" ".join)
@pytest.mark.parametrize("form", [None, TRAINING + 1])
def test_a_study_of_another_version(stopped, refused, words, form, tamper):
    known = f"json_set(facts, '$.training', {form})" if form else "json_remove(facts, '$.training')"
    tamper(f"UPDATE study SET facts = {known}")
    error = refused(*words)
    assert "study 'tiny' was trained by another version" in error
    assert f"of form {form or 1}, this one's of form {TRAINING}" in error
    assert error.endswith("launch it again under a new name")


@pytest.mark.parametrize("words", [["resume", "tiny"], EXTEND], ids=" ".join)
def test_a_configuration_that_this_version_does_not_read(stopped, refused, words, tamper):
    tamper("UPDATE study SET config = json_set(config, '$.budget.rugns', 2)")
    error = refused(*words)
    assert "study 'tiny' was stored by another version: unknown key 'rugns'" in error.replace(
        "budget: ", ""
    )


def test_states_that_are_gone(stopped, refused):
    shutil.rmtree(next(Path("nas-runs").glob("tiny-*")) / "states")
    error = refused("resume", "tiny")
    assert "study 'tiny' goes on from its trainings' states, and " in error
    assert re.search(r" (\d+) of \1 are gone: there is no /", error)
    assert "states/trial-" in error
    assert error.endswith("put the study's own folder back, or launch the study again")


def test_a_copy_of_the_database_without_its_folder(stopped, nas, folder):
    """It must not train in the original's folder."""
    Path("copy").mkdir()
    shutil.copy("nas.db", "copy/nas.db")
    before = contents(), Path("copy/nas.db").read_bytes()
    error = the_error(nas("resume", "tiny", "--db", "sqlite:///copy/nas.db"))
    own = next(Path("nas-runs").glob("tiny-*"))
    assert "study 'tiny' has its files in /" in error
    assert f"must be beside its database: move that folder to {folder / 'copy' / own}, or" in error
    assert "copy it there if that study goes on too" in error
    assert (contents(), Path("copy/nas.db").read_bytes()) == before
    shutil.copytree("nas-runs", "copy/nas-runs")
    assert nas("resume", "tiny", "--db", "sqlite:///copy/nas.db").code == 0


def test_a_corpus_that_only_the_first_directory_has(nas, in_process, folder, monkeypatch):
    class Reads(FakePool):
        def prepare(self, spec, *arguments):
            if not Path(spec.source).exists():
                raise InputError(f"no file matches source {spec.source!r}")
            return super().prepare(spec, *arguments)

    in_process(stops_after(1), Reads)
    assert nas("launch", write_study(corpus=write_corpus())).code == 130
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    error = the_error(nas("resume", "--db", "sqlite:///../nas.db"), preparing=PREPARING)
    said = f"the study was launched in {folder}: resume it from there"
    assert error == f"no file matches source 'corpus.txt'; {said}"


def test_a_corpus_that_changed(stopped, refused, monkeypatch):
    monkeypatch.setattr(FakePool, "text", "another text")
    error = refused("resume", "tiny", preparing=PREPARING)
    assert "study 'tiny' began with another text: the corpus has changed since" in error
    assert "(its content was a text, it is another text)" in error


@pytest.mark.parametrize("words", [["resume", "tiny"], EXTEND], ids=" ".join)
def test_a_study_that_is_held(stopped, refused, words):
    with Store.open("sqlite:///nas.db") as store:
        store.hold_study(store.study().id, new_owner())
        since = store.study().owner_since
    error = refused(*words)
    assert f"a study has one driver: process {os.getpid()} on " in error
    assert f"holds 'tiny' since {since:%Y-%m-%d %H:%M:%S} UTC; stop it with: nas stop tiny" in error


@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_only_what_runs_is_stopped(refused, request, state):
    request.getfixturevalue(state)
    assert refused("stop", "tiny") == (f"only a running study can be stopped: 'tiny' is {state}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--flops", "0"], "--flops must be above 0: got 0.0"),
        (["--flops", "-1e9"], "--flops must be above 0: got -1000000000.0"),
        (["--flops", "nan"], "--flops must be above 0: got nan"),
        (["--flops", "inf"], "--flops must be a finite number of at most 1e+30: got inf"),
        (["--flops", "1e31"], "--flops must be a finite number of at most 1e+30: got 1e+31"),
        (["--flops", "1e29"], "budget.trials must be at most 1,000,000"),
        (["--flops", "1e29", "--trials", "9"], "the account could not see one trial"),
        (["--flops", "some"], "'--flops': 'some' is not a valid float"),
        ([], "Missing option '--flops'"),
        (["--flops", "1e9", "--trials", "8"], "it may try 9 already, got 8"),
        (["--flops", "1e9", "--trials", "0"], "--trials must be a whole number of at least 1"),
        (["--flops", "1e9", "--trials", "1000001"], "budget.trials must be at most 1,000,000"),
        (["--flops", "1e9", "--trials", "many"], "'--trials': 'many' is not a valid integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_extension_that_makes_no_sense(stopped, refused, options, said):
    assert said in refused("extend", "tiny", *options)


@pytest.mark.parametrize("command", ["stop", "extend"])
def test_what_is_changed_is_named(stopped, refused, command):
    more = ["--flops", "1e9"] if command == "extend" else []
    assert "Missing argument 'STUDY'" in refused(command, *more)


def test_python_refuses_the_same(finished):
    before = contents()
    with pytest.raises(InputError, match="'tiny' is finished; give it more with: nas extend"):
        product.resume("tiny")
    with product.Study.open("tiny") as study:
        with pytest.raises(InputError, match="only a running study can be stopped"):
            study.stop()
        with pytest.raises(InputError, match="--flops must be"):
            study.extend(-1.0)
        with pytest.raises(InputError, match="it may try 2 already, got 1"):
            study.extend(1e9, trials=1)
    assert contents() == before
