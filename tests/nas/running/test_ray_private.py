"""A local Ray is private: a secret, loopback, a folder of its own. It changes nothing of ours."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from benchmarks.abuse.ray_machine import session, title, titled
from benchmarks.abuse.strangers import JOIN, refused
from nas.command import doctor
from nas.running import ray_folder
from nas.running.ray_folder import private_folder
from nas.running.ray_pool import RayPool
from nas.running.ray_process import environment
from search_space.corpus import CorpusSpec
from search_space.errors import InputError

pytestmark = pytest.mark.slow

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # a cluster of this one machine


def gcs_address(pool):
    (gcs,) = titled(session(pool._process.pid), "gcs_server")
    (port,) = [c.laddr.port for c in gcs.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return f"127.0.0.1:{port}"


def test_every_listening_socket_is_on_loopback(ray_pool):
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port): title(process)
        for process in session(ray_pool._process.pid)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet", "ray::RuntimeEnvAgent"} <= set(listening.values())
    assert {host for host, _ in listening} == {"127.0.0.1"}, listening


def test_no_process_is_started_that_nobody_asks(ray_pool):
    started = [" ".join(process.cmdline()) for process in session(ray_pool._process.pid)]
    assert any("raylet" in each for each in started)
    helpers = ("autoscaler", "log_monitor.py", "dashboard/dashboard.py")
    assert not [each for each in started if any(helper in each for helper in helpers)]


def test_the_token_is_in_its_file_alone(ray_pool):
    folder = ray_pool._process.folder
    file = folder / "token"
    token = file.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    holding = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and token.encode() in path.read_bytes()
    ]
    assert holding == [file]
    shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout
    assert "nas.running.ray_side" in shown and token not in shown
    assert token not in str(dict(os.environ))


def test_the_callers_environment_and_signals_stay(started_ray, before_ray):
    _, after = started_ray
    assert after == before_ray


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_stranger_is_refused(ray_pool, token):
    given = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    assert refused(JOIN.format(repr(gcs_address(ray_pool))), given) == ""


def test_who_has_the_token_gets_in(ray_pool):
    given = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(ray_pool._process.folder / "token"),
    }
    assert refused(JOIN.format(repr(gcs_address(ray_pool))), given).startswith("it got in")


def test_a_cluster_without_its_token_is_one_line(ray_pool, monkeypatch):
    monkeypatch.setenv(LOOPBACK, "0")
    monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "1")
    with pytest.raises(InputError, match=r"wants its token, .* RAY_AUTH_TOKEN, or its file's path"):
        RayPool(count=1, address=gcs_address(ray_pool))


@pytest.fixture
def short():
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)


def unusable(kind, short):
    """A TMPDIR that Ray cannot use."""
    path = short / {"long": "x" * 80, "file": "file", "missing": "none"}[kind]
    if kind == "long":
        path.mkdir()
    elif kind == "file":
        path.touch()
    return str(path)


def test_the_folder_lies_in_tmpdir_when_that_will_do(short, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(short))
    folder = private_folder()
    assert folder.parent == short
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == ["token"]
    assert environment(folder, local=True)["TMPDIR"] == str(short)


@pytest.mark.parametrize("kind", ["long", "file", "missing"])
def test_the_folder_lies_elsewhere_when_tmpdir_will_not_do(kind, short, monkeypatch):
    other = short / "other"
    other.mkdir()
    monkeypatch.setenv("TMPDIR", unusable(kind, short))
    monkeypatch.setattr(ray_folder, "FALLBACKS", ("/no/such/place", str(other)))
    folder = private_folder()
    assert folder.parent == other
    # What works stays the user's; what does not would break the workers, too.
    expected = os.environ["TMPDIR"] if kind == "long" else str(other)
    assert environment(folder, local=True)["TMPDIR"] == expected
    assert sorted(path.name for path in other.rglob("*")) == sorted([folder.name, "token"])


@pytest.mark.parametrize("kind", ["long", "file", "missing"])
def test_without_any_folder_one_line_names_tmpdir(kind, short, monkeypatch):
    given = unusable(kind, short)
    monkeypatch.setenv("TMPDIR", given)
    monkeypatch.setattr(ray_folder, "FALLBACKS", ("/no/such/place",))
    with pytest.raises(InputError, match=f"TMPDIR='{given}' nor /no/such/place is one; set TMPDIR"):
        RayPool(count=1)
    row = doctor._ray()
    assert row["state"] == "broken" and row["found"].startswith("Ray needs a short folder")
    assert not any(path.name.startswith("nas-") for path in short.rglob("*"))


def test_a_local_ray_takes_no_settings_for_clusters(short, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    made = environment(short, local=True)
    assert "RAY_ADDRESS" not in made and "theirs" not in made.values()
    assert made["RAY_AUTH_TOKEN_PATH"] == str(short / "token")
    assert made["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, None),
        ({"RAY_AUTH_TOKEN": "theirs"}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": "/their/file"}, "token"),
        ({"RAY_AUTH_TOKEN": "theirs", "RAY_AUTH_MODE": "disabled"}, "disabled"),
    ],
)
def test_a_clusters_settings_are_the_users(short, monkeypatch, given, mode):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    made = environment(short, local=False)
    assert made.get("RAY_AUTH_MODE") == mode
    assert {k: v for k, v in made.items() if k in given} == given
    assert str(short / "token") not in made.values()


def test_workers_run_nothing_of_the_users_folder_and_read_its_corpus(tmp_path, monkeypatch):
    for name in ("workers/__init__.py", "queue.py", "torch.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise RuntimeError('a stranger was run')\n")
    text = "\n\n".join(f"paragraph {n} of a small corpus, {n * n}" for n in range(12_000))
    (tmp_path / "corpus.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    pool = RayPool(count=1)
    try:
        facts = pool.prepare(CorpusSpec(source="corpus.txt"), 300, 32, str(tmp_path / "cache"))
    finally:
        pool.close()
    assert facts["meta"]["vocab_size"] == 300
