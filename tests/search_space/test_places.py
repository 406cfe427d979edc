"""The cache folder: what is asked for, with a home directory and without."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from patience import WAIT_S

from search_space.errors import InputError
from search_space.places import cache_dir, settle_home


@pytest.fixture
def nowhere(monkeypatch):
    """A user whom the password file does not know, without any variable set."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "FFN_NAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_variable_is_all_that_is_asked_for(nowhere, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"there is no home directory .* set FFN_NAS_CACHE"):
        cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ffn-nas"
    monkeypatch.setenv("FFN_NAS_CACHE", "/tmp/elsewhere")
    assert cache_dir() == Path("/tmp/elsewhere")


def test_a_home_that_cannot_be_written_is_none(nowhere, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/1")  # nobody makes files there, not even root
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"cannot be kept in /proc/1/.cache/ffn-nas.* set FFN_NAS"):
        cache_dir()


def test_a_home_is_made_in_the_cache_where_there_is_none(nowhere, monkeypatch, tmp_path):
    settle_home()
    assert "HOME" not in os.environ
    monkeypatch.setenv("FFN_NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", "")  # so that the change is undone
    monkeypatch.delenv("HOME")
    settle_home()
    assert Path.home() == tmp_path / "cache" / "home" and Path.home().is_dir()


def test_a_home_that_can_be_written_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FFN_NAS_CACHE", str(tmp_path / "cache"))
    settle_home()
    assert os.environ["HOME"] == str(tmp_path) and not (tmp_path / "cache").exists()


HOMELESS = """
import os, pwd, sys
os.environ.pop("HOME", None)
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""
KERNELS = """
from workers.kernels.settings import Settings
print(Settings.from_environment().cache)
os.environ["FFN_NAS_CACHE"] = "/tmp/elsewhere"
print(Settings.from_environment().cache)
"""
COMMAND = "from nas.command.cli import run; sys.exit(run(['launch', sys.argv[1]]))"


def python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k not in ("FFN_NAS_CACHE", "XDG_CACHE_HOME")}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", HOMELESS + code, *arguments],
        capture_output=True,
        text=True,
        env=known | {"PYTHONPATH": root} | variables,
        timeout=WAIT_S,
    )


def test_kernels_ask_for_no_home():
    # A CPU needs no cache.
    assert python(KERNELS).stdout.split() == ["None", "/tmp/elsewhere"]


def test_a_launch_without_a_home_says_what_to_set(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text("budget: {trials: 1, trial_flops: 1e12}\n")
    done = python(COMMAND, str(study), NAS_DB=f"sqlite:///{tmp_path}/nas.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: there is no home directory")
    assert "set FFN_NAS_CACHE" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
