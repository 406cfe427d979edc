"""What control groups leave of a machine, of both versions."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from search_space import machine
from search_space.machine import memory_left, settle_threads, usable_cpus

VERSION_2 = "0::/batch/job\n"
VERSION_1 = "4:memory:/batch/job\n1:cpu,cpuacct:/batch/job\n0::/\n"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write files of a machine's 64 CPUs and its groups, after `own`, the groups of the process."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for name, words in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(words + "\n")

    return write


def test_without_groups_all_that_it_may_run_on(groups):
    assert (usable_cpus(), memory_left()) == (64, math.inf)
    groups(VERSION_2)
    assert (usable_cpus(), memory_left()) == (64, math.inf)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 64),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("20000 100000", 1),
        ("9900000 100000", 64),
    ],
)
def test_version_2(groups, quota, cpus):
    groups(VERSION_2, **{"batch/job/cpu.max": quota})
    assert usable_cpus() == cpus


def test_the_least_of_a_group_and_those_around_it(groups):
    groups(VERSION_2, **{"batch/job/cpu.max": "max 100000", "batch/cpu.max": "300000 100000"})
    assert usable_cpus() == 3
    groups(VERSION_2, **{"cpu.max": "200000 100000"})
    assert usable_cpus() == 2


@pytest.mark.parametrize("own", ["0::/../../other\n", "0::/\n", "0::/no/such/group\n"])
def test_a_container_sees_its_own_group_as_the_root(groups, own):
    groups(own, **{"cpu.max": "200000 100000"})
    assert usable_cpus() == 2


@pytest.mark.parametrize("quota", ["-1", "500000"])
def test_version_1(groups, quota):
    cpus = "cpu,cpuacct/batch/job/cpu.cfs_"
    groups(VERSION_1, **{f"{cpus}quota_us": quota, f"{cpus}period_us": "100000"})
    (machine.GROUPS / "cpu").symlink_to("cpu,cpuacct")
    assert usable_cpus() == (64 if quota == "-1" else 5)


def test_memory_of_version_2(groups):
    job = "batch/job/memory."
    groups(
        VERSION_2,
        **{f"{job}max": "1000", f"{job}current": "700", f"{job}stat": "anon 1\ninactive_file 200"},
    )
    assert memory_left() == 500
    groups(VERSION_2, **{f"{job}max": "max"})
    assert memory_left() == math.inf
    groups(VERSION_2, **{"batch/memory.max": "900", "batch/memory.current": "950"})
    assert memory_left() == 0


def test_memory_of_version_1(groups):
    job = "memory/batch/job/memory."
    stat = "inactive_file 5\ntotal_inactive_file 100"
    files = {"limit_in_bytes": "1000", "usage_in_bytes": "700", "stat": stat}
    groups(VERSION_1, **{f"{job}{name}": words for name, words in files.items()})
    assert memory_left() == 400


def test_threads_follow_a_quota_alone(groups, monkeypatch):
    groups(VERSION_2)
    settle_threads()
    assert "OMP_NUM_THREADS" not in os.environ
    groups(VERSION_2, **{"batch/job/cpu.max": "400000 100000"})
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "4"


def test_this_process_is_in_groups_that_can_be_read():
    assert Path("/proc/self/cgroup").exists() and 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert memory_left() > 0
