"""Actions as processes: they outlive the server, are seen from anywhere, and say how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from actions_tools import ended, furnish, study_text, until

from dashboard.actions import TOKEN
from dashboard.actions.buttons import extend_options, possible
from dashboard.actions.process import LOST, Action, Actions
from nas.process.holder import new_owner
from nas.store import NoStudiesYet, Store, StudyState
from search_space.errors import InputError

URL = "sqlite:///nas.db"
# A page's server that starts a study and is killed at once.
SERVER = """
import os, signal, sys
from pathlib import Path
from dashboard.actions.process import Actions
actions = Actions("sqlite:///nas.db", Path.cwd())
text = Path("asked.yaml").read_text()
options = ["--name", "tiny", "--", "{folder}/study.yaml"]
actions.start("launch", "tiny", options, files={"study.yaml": text})
os.killpg(0, signal.SIGKILL)  # with all of its group, as a closed terminal does
"""


@pytest.fixture
def actions(tmp_path, monkeypatch) -> Actions:
    furnish(tmp_path, monkeypatch)
    return Actions(URL, tmp_path)


def finished() -> int:
    """Trials of the study that finished."""
    try:
        with Store.open(URL, create=False) as store:
            trials = store.trials(store.study("tiny").id) if store.studies() else []
            return sum(trial.status == "finished" for trial in trials)
    except NoStudiesYet:
        return 0


@pytest.mark.slow
def test_a_study_outlives_the_server_and_is_stopped_extended_resumed_and_exported(actions):
    Path("asked.yaml").write_text(study_text())
    killed = subprocess.run([sys.executable, "-c", SERVER], start_new_session=True)
    assert killed.returncode == -signal.SIGKILL
    launched = actions.all()[0]
    assert (launched.verb, launched.study) == ("launch", "tiny")
    assert until(lambda: finished() >= 1), launched.output()
    assert launched.code is None

    stop = actions.start("stop", "tiny", ["--", "tiny"])
    with pytest.raises(InputError, match="nas stop tiny is under way already, since"):
        actions.start("stop", "tiny", ["--", "tiny"])
    assert ended(stop) == 0, stop.output()
    assert "study tiny is stopped; go on with: nas resume tiny" in stop.output()
    assert ended(launched) == 130
    assert launched.last_line.startswith("stopped; what was running is recorded as stopped")
    done = finished()
    assert 1 <= done < 4

    options = extend_options("1e8", "5")
    extended = actions.start("extend", "tiny", [*options, "--", "tiny"])
    assert ended(extended) == 0, extended.output()
    resumed = actions.start("resume", "tiny", ["--", "tiny"])
    assert ended(resumed) == 0, resumed.output()
    assert finished() == 5
    with Store.open(URL, create=False) as store:
        assert store.study("tiny").state is StudyState.FINISHED

    model = str(Path.cwd() / "model")
    options = [f"--to={model}", "--no-verify", "--", "tiny"]
    exported = actions.start("export", "tiny", options, target=model)
    assert ended(exported) == 0, exported.output()
    assert exported.last_line == model
    assert (Path(model) / "config.json").is_file()
    # The commands ran where the server did: the study's files lie as `nas launch` would leave them.
    assert len(list(Path("nas-runs").iterdir())) == 1


@pytest.mark.slow
def test_no_secret_is_on_a_command_line_or_in_a_file(tmp_path, monkeypatch):
    furnish(tmp_path, monkeypatch)
    monkeypatch.setenv(TOKEN, "a-token-of-the-page")
    url = "postgresql+psycopg://me:hidden-word@127.0.0.1:1/nas"
    actions = Actions(url, tmp_path)
    action = actions.start("stop", "tiny", ["--", "tiny"])
    process = Path(f"/proc/{action.pid}")
    if process.is_dir():
        assert b"hidden-word" not in (process / "cmdline").read_bytes()
        assert until(lambda: b"NAS_DB=" in (process / "environ").read_bytes(), 5)
        assert TOKEN.encode() not in (process / "environ").read_bytes()
    assert ended(action) == 2
    assert "127.0.0.1:1" in action.last_line  # it asked the database of the page
    for file in actions.place.rglob("*"):
        if file.is_file():
            assert "hidden-word" not in file.read_text(), file
    assert action.folder.stat().st_mode & 0o077 == 0


def remembered(actions: Actions, **changes) -> Action:
    """An action as another server left it."""
    folder = actions.place / f"{len(actions.all())}-stop"
    folder.mkdir(parents=True)
    data = {
        "folder": str(folder),
        "verb": "stop",
        "study": "tiny",
        "arguments": ["stop", "--", "tiny"],
        "target": "",
        "pid": os.getpid(),
        "owner": new_owner(),
        "began": 1.0,
    }
    (folder / "action.json").write_text(json.dumps(data | changes))
    return next(each for each in actions.all() if each.folder == folder)


def test_how_an_action_ended_is_told_by_its_note_or_its_process(actions):
    runs = remembered(actions)
    assert runs.code is None
    (runs.folder / "ended").write_text("2\n")
    assert runs.code == 2
    dead = new_owner().replace("since tick ", "since tick 9")
    assert remembered(actions, owner=dead).code == LOST
    elsewhere = "process 1 (since tick 9) on another, 0123abcd"
    assert remembered(actions, owner=elsewhere).code == LOST
    actions.place.joinpath("broken").mkdir()
    actions.place.joinpath("broken/action.json").write_text("{")
    assert len(actions.all()) == 3


def test_only_the_end_of_a_long_output_is_shown(actions):
    action = remembered(actions)
    (action.folder / "output.log").write_bytes(b"line\n" * 9999 + b"Error: \xff it failed\n\n")
    shown = action.output()
    assert len(shown) < 17_000
    assert shown.startswith("...\nline\n")
    assert action.last_line == "\N{REPLACEMENT CHARACTER} it failed"


def test_other_folders_and_databases_have_actions_of_their_own(actions, tmp_path):
    remembered(actions)
    assert Actions(URL, tmp_path / "site").all() == []
    assert Actions("sqlite:///other.db", tmp_path).all() == []
    a, b = (Actions(f"postgresql://me:{word}@there/nas", tmp_path).place for word in ("x", "y"))
    assert a == b  # the password is not part of it


@pytest.mark.parametrize(
    ("flops", "trials", "said"),
    [
        ("", "", "more training FLOPs is a number above 0, such as 5e12: got ''"),
        ("abc", "", "got 'abc'"),
        ("nan", "", "got 'nan'"),
        ("-1e9", "", "got '-1e9'"),
        ("1e999", "", "got '1e999'"),
        ("1e9", "some", "designs in all is a whole number above 0: got 'some'"),
        ("1e9", "-3", "got '-3'"),
        ("1e9", "0", "got '0'"),
    ],
)
def test_an_extension_that_is_no_number_is_a_sentence(flops, trials, said):
    with pytest.raises(InputError) as error:
        extend_options(flops, trials)
    assert said in str(error.value)


def test_what_can_be_done_follows_from_the_state(url, fill):
    with Store.open(url) as store:
        for state in StudyState:
            study = fill(store, state.value, state)
            old = possible(store.study(study.name), 0.0)
            assert "another version" in old.resume and "another version" in old.extend
            assert (old.stop == "") == (state is StudyState.RUNNING)
