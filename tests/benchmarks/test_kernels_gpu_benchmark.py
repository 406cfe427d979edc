"""The GPU benchmark, in the interpreter at toy sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

pytest.importorskip("triton", reason="the Triton forms need triton")

ROOT = Path(__file__).parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)


def test_every_operation_is_checked(tmp_path):
    file = tmp_path / "rows.json"
    done = run("--interpret", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(file.read_text())["rows"]
    names = {row["name"].removesuffix(": error") for row in rows}
    assert names == {
        "grouped product",
        "grouped product, gather fused",
        "weight gradient",
        "expert layer",
        "row sum",
        "row dot",
        "row gradient",
        "product key",
        "gated activation",
        "RMSNorm",
        "linear + cross-entropy",
    }
    assert all(0 <= row["value"] <= 1e-5 for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what to do where there is no GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 2
    assert "--interpret runs toy sizes on the CPU" in " ".join(done.stderr.split())
