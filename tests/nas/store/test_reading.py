"""Reading asks for reading only: no file is made, no lock is kept, whatever the storage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from patience import WAIT_S

from nas.command.cli import run
from nas.command.doctor import _database
from nas.store import BrokenRecord, Store, StoreUnavailable, StudyState
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Status
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

READERS = (["list"], ["status"], ["pareto"], ["pareto", "--all"], ["show"])
ROOT = Path(__file__).parents[3]


def fill(url: str, trials: int = 2) -> None:
    with Store.open(url) as store:
        study = store.create_study("one", {}, 0, 1e13, ["bits_per_byte", "active_flops"])
        for number in range(trials):
            add_trial(store, study.id, number)
        store.update_study(study.id, state=StudyState.FINISHED)


def add_trial(store: Store, study_id: int, number: int) -> None:
    spec = FFNSpec(d_ff=8 * (number + 1))
    cost = model_cost(spec, Backbone()).to_dict()
    more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1e9, "cost": cost}
    _, evaluation = store.add_trial(study_id, spec, **more)
    result = EvalResult(
        evaluation=evaluation.id, status=Status.FINISHED, bits_per_byte=2.0, flops=1e9
    )
    store.end_evaluation(result)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database that nobody has open."""
    folder = tmp_path / "db"
    folder.mkdir()
    fill(f"sqlite:///{folder}/nas.db")
    assert [path.name for path in folder.iterdir()] == ["nas.db"]
    return folder / "nas.db"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_command_that_reads_makes_and_changes_no_file(file: Path, words, capsys) -> None:
    before = file.stat()
    assert run([*words, "--db", f"sqlite:///{file}"]) == 0, capsys.readouterr().err
    assert names(file.parent) == ["nas.db"]
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (before.st_mtime_ns, before.st_size)


def test_doctor_makes_no_database(file: Path, tmp_path: Path) -> None:
    row = _database(f"sqlite:///{tmp_path}/none.db")
    assert (row["state"], names(tmp_path)) == ("ok", ["db"])
    assert "no studies at" in row["found"]
    row = _database(f"sqlite:///{file}")
    assert (row["state"], names(file.parent)) == ("ok", ["nas.db"])
    assert row["found"].endswith("1 studies")
    assert _database(f"sqlite:///{tmp_path}/none/nas.db")["state"] == "broken"


ODD = {"a b": "a b", "a#1": "a#1", "100%25": "100%", "%2541": "%41", "a%3Fb=c": "a?b=c", "é&": "é&"}


@pytest.mark.parametrize("written", ODD)
def test_odd_names_are_read_as_a_url_writes_them(tmp_path: Path, written: str) -> None:
    url = f"sqlite:///{tmp_path}/{written}"
    fill(url)
    with Store.open(url, create=False) as store:
        assert [study.name for study in store.studies()] == ["one"]
        assert store.url == url
    assert names(tmp_path) == [ODD[written]]


@pytest.mark.parametrize("options", ["?b", "?mode=ro", "?"])
def test_options_of_an_sqlite_url_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(InputError, match=r"without '\?' and options.*written %3F"):
        Store.open(f"sqlite:///{tmp_path}/a{options}")
    assert names(tmp_path) == []


def test_a_reader_sees_a_running_study_and_is_in_nobodys_way(file: Path) -> None:
    url = f"sqlite:///{file}"
    with Store.open(url, create=False) as reader:
        study = reader.study("one")
        assert len(reader.trials(study.id)) == 2
        with Store.open(url) as writer:
            for number in (2, 3):
                began = time.monotonic()
                add_trial(writer, study.id, number)
                assert time.monotonic() - began < 10, "the reader held a lock"
                assert len(reader.trials(study.id)) == len(reader.measures(study.id)) == number + 1
        assert len(reader.trials(study.id)) == 4
    assert names(file.parent) == ["nas.db"]


def test_what_changes_while_it_is_read_is_read_again(file: Path) -> None:
    url, calls = f"sqlite:///{file}", []

    with Store.open(url, create=False) as reader:

        def body(session) -> int:
            calls.append(1)
            if len(calls) == 1:
                with Store.open(url) as writer:
                    add_trial(writer, 1, 2)
            return session.connection().exec_driver_sql("SELECT count(*) FROM trial").scalar()

        assert reader._read(body) == 3
    assert len(calls) == 2


def test_changes_beside_the_file_are_read(file: Path, tmp_path: Path) -> None:
    """As a copy of a running study, or a study whose driver was killed."""
    copy = tmp_path / "copy"
    with Store.open(f"sqlite:///{file}") as writer:
        add_trial(writer, 1, 2)
        shutil.copytree(file.parent, copy)
    (copy / "nas.db-shm").unlink()
    with Store.open(f"sqlite:///{copy}/nas.db", create=False) as reader:
        assert len(reader.trials(1)) == 3


def test_a_link_to_a_database_is_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(file)
    with Store.open(f"sqlite:///{file}") as writer:
        add_trial(writer, 1, 2)
        with Store.open(f"sqlite:///{link}", create=False) as reader:
            assert len(reader.trials(1)) == 3
    assert names(tmp_path) == ["db", "link.db"]


@pytest.mark.parametrize("create", [False, True])
def test_a_database_that_goes_away_or_is_another_one_says_so(file: Path, create: bool) -> None:
    with Store.open(f"sqlite:///{file}", create=create) as store:
        aside = file.with_name("aside.db")
        file.rename(aside)
        with pytest.raises(StoreUnavailable, match=r"nas\.db cannot be found any more") as caught:
            store.studies()
        assert "\n" not in str(caught.value)
        shutil.copy(aside, file)
        with pytest.raises(StoreUnavailable, match="was replaced by another file"):
            store.studies()
        aside.replace(file)
        assert len(store.studies()) == 1


def test_what_is_wrong_with_the_tables_is_one_line_without_sql(file: Path, capsys) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE evaluation")
    connection.close()
    assert run(["status", "--db", f"sqlite:///{file}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: cannot read the database {file}: no such table: evaluation")
    assert error.count("\n") == 1
    assert not any(word in error for word in ("SELECT", "SQL", "sqlite3", "Traceback"))


AS_NOBODY = """
import os, sys
from nas.command.cli import run
run(["list", "--db", sys.argv[1]])  # imports what a command needs while it may
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(run(["list", "--db", sys.argv[2]]))
"""


def test_a_database_of_another_user(file: Path, request: pytest.FixtureRequest) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    base = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(base))
    base.chmod(0o755)
    theirs = base / "theirs"
    shutil.copytree(file.parent, theirs)
    command = [sys.executable, "-c", AS_NOBODY, f"sqlite:///{file}", f"sqlite:///{theirs}/nas.db"]

    def listed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=WAIT_S)

    (theirs / "nas.db").chmod(0o644)
    readable = listed()
    assert readable.returncode == 0, readable.stderr
    assert names(theirs) == ["nas.db"]
    (theirs / "nas.db").chmod(0)
    refused = listed()
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1 and "check that the file can be read" in refused.stderr
    theirs.chmod(0)
    refused = listed()
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1 and "Permission denied" in refused.stderr


ON_READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99
shift
exec "$@"
"""
COMMANDS = """
import sys
from nas.command.cli import run
from nas.command.doctor import _database
url = sys.argv[1]
for words in (["list"], ["status"], ["pareto"], ["show"]):
    print(*words, run([*words, "--db", url]), file=sys.stderr)
print("doctor", _database(url), file=sys.stderr)
print("launch", run(["launch", sys.argv[2], "--db", url]), file=sys.stderr)
"""
STUDY = "budget: {trials: 1, trial_flops: 1e12}\n"


def read_only(folder: Path, url: str, study: Path) -> list[str]:
    """What the commands say over a folder that is mounted read-only."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("this machine does not let a test mount a folder read-only")
    command = ["unshare", "-m", "sh", "-c", ON_READ_ONLY, "sh", str(folder)]
    command += [sys.executable, "-c", COMMANDS, url, str(study)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=WAIT_S)
    assert done.returncode != 99, done.stderr
    return done.stderr.splitlines()


def test_a_finished_study_on_read_only_storage_is_read(file: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    *read, doctor, error, launch = read_only(file.parent, f"sqlite:///{file}", study)
    assert read == ["list 0", "status 0", "pareto 0", "show 0"]
    assert "'state': 'note'" in doctor and "read only: nas launch needs another --db" in doctor
    assert launch == "launch 2"
    assert error.startswith(f"Error: cannot write the database {file}: ")
    assert names(file.parent) == ["nas.db"]


def test_changes_that_read_only_storage_hides_are_spoken_of(file: Path, tmp_path: Path) -> None:
    study, copy = tmp_path / "study.yaml", tmp_path / "copy"
    study.write_text(STUDY)
    with Store.open(f"sqlite:///{file}") as writer:
        add_trial(writer, 1, 2)
        # A study that runs elsewhere is read over the files that its driver keeps open.
        live = read_only(file.parent, f"sqlite:///{file}", study)
        shutil.copytree(file.parent, copy)
    assert live[:4] == ["list 0", "status 0", "pareto 0", "show 0"]
    (copy / "nas.db-shm").unlink()
    said = read_only(copy, f"sqlite:///{copy}/nas.db", study)
    assert said[1] == "list 2"
    assert "its last changes lie in nas.db-wal" in said[0] and "copy both" in said[0]


# Rows that make no sense

DAMAGES = {
    "spec": ("UPDATE trial SET spec = '{\"d_ff\": 0}' WHERE number = 1", "d_ff must be"),
    "null spec": ("UPDATE trial SET spec = 'null' WHERE number = 1", "its spec is None"),
    "cut spec": ("UPDATE trial SET spec = '{\"d_ff' WHERE number = 1", "trial 1"),
    "cost": ('UPDATE trial SET cost = \'{"active_flops": "x"}\' WHERE number = 1', "its cost"),
    "null cost": ("UPDATE trial SET cost = 'null' WHERE number = 1", "its cost is None"),
    "status": ("UPDATE trial SET status = 'odd' WHERE number = 1", "odd"),
    "mean": ("UPDATE trial SET bits_per_byte = 'x' WHERE number = 1", "its bits_per_byte"),
    "measure": ("UPDATE evaluation SET bits_per_byte = 'x' WHERE id = 2", "its bits_per_byte"),
    "activity": ("UPDATE evaluation SET activity = 'null' WHERE id = 2", "its activity"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_trial_is_named(file: Path, damage: str, capsys) -> None:
    statement, said = DAMAGES[damage]
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()
    codes = {" ".join(words): run([*words, "--db", f"sqlite:///{file}"]) for words in READERS}
    lines = capsys.readouterr().err.splitlines()
    assert codes["pareto --all"] == 1
    assert set(codes.values()) <= {0, 1}
    assert len(lines) == sum(codes.values())
    for line in lines:
        assert line.startswith("Error: trial 1 of study 'one' cannot be read: "), line
        assert said in line and "launch the study again under a new name" in line


def test_a_method_that_is_not_installed_is_no_damage(file: Path, capsys) -> None:
    selection = "json_set(spec, '$.selection', json('{\"method\": \"elsewhere\"}'))"
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE trial SET spec = {selection} WHERE id = 2")
    connection.close()
    assert run(["pareto", "--all", "--db", f"sqlite:///{file}"]) == 1
    error = capsys.readouterr().err
    assert "trial 1 of study 'one' cannot be read: selection: unknown method 'elsewhere'" in error
    assert "install the package that the method came with" in error and "copy" not in error


BROKEN_EVALUATIONS = {
    "status": ("status = 'odd'", "odd"),
    "measure": ("active_flops = 'x'", "its active_flops"),
    "windows": ("windows = x'00'", "its windows"),
    "stats": ("stats = '{'", "Expecting property name"),
}


@pytest.mark.parametrize("damage", BROKEN_EVALUATIONS)
def test_a_broken_evaluation_names_its_trial(file: Path, damage: str) -> None:
    change, said = BROKEN_EVALUATIONS[damage]
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE evaluation SET {change} WHERE id = 2")
    connection.close()
    with Store.open(f"sqlite:///{file}", create=False) as store:
        reads = [lambda: store.result(2)]
        if damage in ("status", "measure"):
            reads += [lambda: store.evaluation(2), lambda: store.evaluations(1)]
        for read in reads:
            with pytest.raises(BrokenRecord) as caught:
                read()
            text = str(caught.value)
            assert text.startswith("trial 1 of study 'one' cannot be read: ") and said in text
        assert store.result(1).bits_per_byte == 2.0


@pytest.mark.parametrize("value", ["'null'", "'[1]'", "'{'", "NULL"])
def test_a_broken_study_is_named(file: Path, value: str, capsys) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'config JSON NOT NULL', 'config JSON')"
        )
    connection.close()
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE study SET config = {value}")
    connection.close()
    for words in (["list"], ["status"], ["status", "one"]):
        assert run([*words, "--db", f"sqlite:///{file}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: study 'one' cannot be read: ") and error.count("\n") == 1
