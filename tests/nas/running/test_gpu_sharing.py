"""How many trials share a GPU: measured, told, and fewer when its memory runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from depth import LONG
from patience import WAIT_S

from nas.machines import Workers
from nas.running.gpu_sharing import MPS, fewer, share_of, start_mps, trials_of
from search_space.errors import InputError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("trials", range(1, 17))
def test_a_share_that_ray_can_count_means_its_number_of_trials(trials):
    share = share_of(trials)
    assert share * trials <= 1
    assert abs(share * 1e4 - round(share * 1e4)) < 1e-9
    assert trials_of(share) == trials


def test_shares_that_people_write_count_as_they_are_meant():
    assert [trials_of(gpus) for gpus in (0, 0.25, 0.3, 0.5, 1, 2)] == [1, 4, 3, 2, 1, 1]
    assert [fewer(trials) for trials in (16, 8, 3, 2, 1)] == [8, 4, 1, 1, 1]


def test_a_study_says_a_share_or_leaves_it_to_measurement():
    assert Workers().gpus_per_trial == "auto"
    assert Workers(device="cuda").gpus_per_trial == "auto"
    assert Workers(device="cpu").gpus_per_trial == "auto"
    with pytest.raises(InputError, match=r"a number, or auto: got 'half'"):
        Workers(gpus_per_trial="half")
    with pytest.raises(InputError, match="would reserve GPUs"):
        Workers(device="cpu", gpus_per_trial=0.5)


@LONG
@pytest.mark.slow
def test_out_of_memory_on_a_shared_gpu_lowers_the_number_and_ends_no_trial():
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:  # Ray's sockets: short
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("shared_gpu.py")), folder],
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert told[0]["shares"] == [0.25, "4 trials share a GPU"]
    assert told[0]["broken"] == [1.0, "one trial a GPU: it broke"]
    assert told[0]["beats"] > 0
    first, *rest = told[1]["ended"]
    assert first[:2] == [0, "out_of_memory"]
    assert first[2] == "the GPU's memory is too small for 4 trials; from now on 2 share one (full)"
    assert first[3] == 2
    assert sorted(each[0] for each in rest) == [0, 1, 2, 3]
    assert {each[1] for each in rest} == {"finished"}
    assert told[1]["left"] == 2


def fake_mps(folder: Path, body: str) -> None:
    command = folder / MPS
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(0o755)


def test_the_multi_process_service_is_used_where_it_runs(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.delenv("CUDA_MPS_LOG_DIRECTORY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    caplog.set_level("INFO")
    assert start_mps(tmp_path) is None
    assert f"there is no {MPS} here" in caplog.text

    fake_mps(tmp_path, "exit 3")
    (tmp_path / "a").mkdir()
    assert start_mps(tmp_path / "a") is None
    assert f"{MPS} ended with 3" in caplog.text
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ

    fake_mps(tmp_path, "exec /bin/sleep 60")
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "")  # so that the change is undone
    monkeypatch.setenv("CUDA_MPS_LOG_DIRECTORY", "")
    daemon = start_mps(tmp_path / "b")
    assert daemon is not None
    try:
        assert daemon.poll() is None
        assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == str(tmp_path / "b" / "mps-pipe")
        assert start_mps(tmp_path / "c") is None  # one is enough
    finally:
        daemon.kill()
        daemon.wait()
