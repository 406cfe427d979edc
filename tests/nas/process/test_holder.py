"""Holders: when a process that holds a study is known to be gone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.process.holder import is_gone, new_owner, words


@pytest.fixture
def ended() -> str:
    """A holder whose process has ended."""
    code = "from nas.process.holder import new_owner; print(new_owner())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout[:-1]


def test_a_process_that_ended_is_gone(ended: str) -> None:
    assert is_gone(ended)
    assert not is_gone(new_owner())


def test_a_process_that_got_a_dead_ones_id_is_not_the_holder() -> None:
    assert is_gone(re.sub(r"since tick \d+", "since tick 1", new_owner()))


def test_a_machine_of_the_same_name_is_another(ended: str) -> None:
    """The first namespace of processes has one number on all machines; a boot's name is its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    assert not is_gone(ended.replace(boot, "0" * 8))


def test_a_process_that_proc_does_not_show_lives(ended: str, monkeypatch) -> None:
    """As with hidepid, for another user's."""

    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_gone(ended)


def test_what_no_process_wrote_is_never_gone() -> None:
    assert not is_gone("somebody")
    assert words("somebody") == "somebody"


def test_a_holder_in_words() -> None:
    assert re.fullmatch(rf"process {os.getpid()} on [^:,]+", words(new_owner()))
