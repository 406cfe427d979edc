"""Every database that cannot be used is refused with one line and no password."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from patience import WAIT_S
from sqlalchemy import make_url

from nas.store import Store
from nas.store.endings import spent_flops
from nas.store.migrate import HEAD, alembic_config
from nas.store.names import free_name
from nas.store.redaction import display, without_secrets
from search_space.errors import InputError

pytestmark = pytest.mark.slow

PASSWORD = "s3cret"


def refusal(url: str, create: bool = True) -> str:
    with pytest.raises(InputError) as caught:
        Store.open(url, create=create)
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    return message


@pytest.mark.parametrize(
    "url", ["", "nas.db", "sqlite:nas.db", f"postgresql//me:{PASSWORD}@host/db?password={PASSWORD}"]
)
def test_a_malformed_url(url: str) -> None:
    assert "a database URL has the form sqlite:///FILE or postgresql+psycopg" in refusal(url)


def test_a_malformed_port() -> None:
    assert "a database URL has the form" in refusal(f"postgresql://me:{PASSWORD}@host:port/db")


SHAPES = {
    "an @ in a database URL's user or password is written %40": [
        f"postgresql://me:p@{PASSWORD}@host/db",
        f"postgresql://me:{PASSWORD}@p@host/db",
    ],
    "a database URL has the form": [
        f"postgresql://me:{PASSWORD}@[::1/db",
        f"postgresql://me:{PASSWORD}/db",
        f"postgresql+psycopg://me:{PASSWORD}",
        f"postgresql:me:{PASSWORD}",
        f"postgresql:/me:{PASSWORD}/db",
        f"host=h password={PASSWORD}",
        f"postgresql://me:p?{PASSWORD}@host:x/db",
        f"postgresql://me:{PASSWORD}\0@host/db",
        f"postgresql://me:{PASSWORD}%00@host/db",
        f"postgresql://me:{PASSWORD}\udcff@host/db",
    ],
    "an SQLite URL is": [
        f"sqlite://me:{PASSWORD}@/nas.db",
        "sqlite://host/nas.db",
        f"sqlite:///nas.db?key={PASSWORD}",
    ],
    "a path holds no NUL|has the form": ["sqlite:///a%00b"],
    "File name too long": [f"sqlite:///{'x' * 300}", f"sqlite:///{'x/' * 3_000}nas.db"],
    "is a pipe, a device": ["sqlite:////dev/zero"],
    "cannot reach the database": [
        f"postgresql:///me:{PASSWORD}",
        f"postgresql://me:{PASSWORD}%zz@127.0.0.1:1/db",
        f"postgresql://me:%40{PASSWORD}/x@127.0.0.1:1/db",
        f"postgresql:///db?host=127.0.0.1&port=1&password={PASSWORD}&sslpassword={PASSWORD}",
        f"postgresql:///db?host=127.0.0.1&port=1&PASSWORD={PASSWORD}",
        f"postgresql:///db?host=127.0.0.1&port=1&passfile={PASSWORD}&options=-c%20{PASSWORD}",
        "postgresql://127.0.0.1:99999999/db",
    ],
    "has an option that its driver refuses": [
        f"postgresql://me:{PASSWORD}@/db?host=a,b&port=x",
    ],
}


@pytest.mark.parametrize(("said", "url"), [(said, u) for said in SHAPES for u in SHAPES[said]])
def test_urls_of_every_shape(said: str, url: str) -> None:
    pytest.importorskip("psycopg")
    for create in (False, True):
        assert re.search(said, refusal(url, create))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nas.db")
    assert "is a pipe" in refusal(f"sqlite:///{tmp_path}/nas.db")


def test_a_driver_that_repeats_a_secret() -> None:
    url = make_url(f"postgresql+psycopg://me:a%20{PASSWORD}@h/db?key={PASSWORD}2&host=open")
    said = f"bad 'a {PASSWORD}', a%20{PASSWORD}, a+{PASSWORD} or {PASSWORD}2 at open"
    assert without_secrets(said, url) == "bad '***', ***, *** or *** at open"
    assert display(url) == "postgresql+psycopg://me:***@h/db?host=open"


@pytest.mark.parametrize("query", ["", f"?sslpassword={PASSWORD}"])
def test_a_debug_log_holds_no_password(query: str) -> None:
    pytest.importorskip("psycopg")
    command = [sys.executable, "-c", "from nas.command.cli import main; main()", "--debug", "list"]
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/db{query}"
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"NAS_DB": url}, timeout=WAIT_S
    )
    assert done.returncode == 2 and "127.0.0.1:1" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("url", [f"mysql://me:{PASSWORD}@host/db", "sqlite+aiosqlite:///nas.db"])
def test_another_kind_of_database(url: str) -> None:
    assert "must be SQLite or PostgreSQL" in refusal(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_sqlite_needs_a_file(url: str) -> None:
    assert "needs a file" in refusal(url)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path}/none does not" in refusal(f"sqlite:///{tmp_path}/none/nas.db")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write")
def test_an_unwritable_folder() -> None:
    assert "its folder are writable" in refusal("sqlite:////proc/nas.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all\n" * 100)
    assert "notes.txt is not an SQLite database" in refusal(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database at all")


def test_a_reader_does_not_make_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nas.db"
    assert "nas launch STUDY.yaml" in refusal(f"sqlite:///{path}", create=False)
    assert not path.exists()


def test_a_server_that_does_not_answer() -> None:
    pytest.importorskip("psycopg")
    message = refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:1/nas?sslpassword={PASSWORD}")
    assert "cannot reach the database postgresql+psycopg://me:***@127.0.0.1:1/nas" in message


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = refusal(f"postgresql://me:{PASSWORD}@host/nas")
    assert "needs the package psycopg: pip install 'psycopg[binary]'" in message


def test_the_sqlite_connection_is_set_up_for_many_processes(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        with store._engine.connect() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert repr(store) == f"Store(sqlite:///{tmp_path}/nas.db)"
        assert store.url == f"sqlite:///{tmp_path}/nas.db"
    assert found == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }


def test_the_store_lives_beside_other_tables(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('v3.2.0.a')")
    with Store.open(f"sqlite:///{path}") as store:
        assert store.studies() == []


def test_head_is_the_last_migration(tmp_path: Path) -> None:
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{tmp_path}/nas.db")
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    engine.dispose()
    assert script.get_heads() == [HEAD]
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True), "versions are compared as text"


def test_a_migration_can_be_undone(tmp_path: Path) -> None:
    from alembic import command
    from sqlalchemy import create_engine, inspect

    engine = create_engine(f"sqlite:///{tmp_path}/nas.db")
    with engine.begin() as connection:
        config = alembic_config(connection)
        command.upgrade(config, HEAD)
        assert "trial" in inspect(connection).get_table_names()
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["nas_alembic_version"]
    engine.dispose()


def test_the_smallest_free_name_is_taken() -> None:
    assert free_name("a", {"b"}) == "a"
    assert free_name("a", {"a", "a-3"}) == "a-2"
    assert free_name("a", {"a", "a-2", "a-3"}) == "a-4"


def test_flops_that_make_no_sense_cost_the_reservation() -> None:
    assert spent_flops(5.0, 9.0) == 5.0
    assert spent_flops(0.0, 9.0) == 0.0
    assert spent_flops(float("nan"), 9.0) == 9.0


WRITER = """
import sys
from nas.store import Store
from search_space.spec import FFNSpec
with Store.open(sys.argv[1]) as store:
    study = store.study("shared")
    for _ in range(20):
        store.add_trial(study.id, FFNSpec(d_ff=8), seed=0, source="x", params={},
                        until_flops=1.0, cost={})
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url) as store:
        study = store.create_study("shared", {}, 0, 1e9, ["bits_per_byte"])
        command = [sys.executable, "-c", WRITER, url]
        writers = [subprocess.Popen(command) for _ in range(2)]
        assert [writer.wait(timeout=WAIT_S) for writer in writers] == [0, 0]
        assert [trial.number for trial in store.trials(study.id)] == list(range(40))
        assert store.ledger(study.id).reserved == 40.0


def test_a_current_database_opens_without_alembic_torch_triton_or_ray(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nas.db"
    Store.open(url).close()
    program = (
        "import sys; from nas.store import Store; Store.open(sys.argv[1]).close(); "
        "print([m for m in ('torch', 'triton', 'ray', 'alembic', 'pandas') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert done.stdout.strip() == "[]"
