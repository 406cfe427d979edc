"""The GPU benchmark, in the interpreter at toy sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from depth import LONG
from patience import WAIT_S

pytestmark = pytest.mark.slow

pytest.importorskip("triton", reason="the Triton forms need triton")

ROOT = Path(__file__).parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=WAIT_S
    )


@LONG
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
        "gated outputs",
        "row sum",
        "row dot",
        "row gradient",
        "much of a table",
        "product key",
        "gated activation",
        "RMSNorm",
        "residual norm",
        "linear + cross-entropy",
    }
    assert all(0 <= row["value"] <= 1e-5 for row in rows)


def test_steps_and_shares_have_their_rows(monkeypatch):
    from benchmarks import gpu_steps
    from workers.sharing import Sharing

    for name, value in {"WARM_UP": 1, "STEPS": 1, "TURNS": 1, "CASES": gpu_steps.toy()}.items():
        monkeypatch.setattr(gpu_steps, name, value)
    rows = {row.name: row for row in gpu_steps.step_rows("float32", "cpu", rate=1e12)}
    ours, theirs = (rows[f"toy: {whose}"].value for whose in ("ours", "transformers"))
    assert rows["toy: ours against transformers"].value == pytest.approx(ours / theirs)
    assert 0 < rows["toy: model FLOPs, of the product's rate"].value < 1
    found = Sharing(2, ((1, 100.0), (2, 190.0)), 0.0, 0.0, "more would stand in their way")
    monkeypatch.setattr(gpu_steps, "measure", lambda probe, counts: found)
    assert [(row.name, row.value) for row in gpu_steps.sharing_rows("cpu")] == [
        *(("1 trials a GPU", 100.0), ("2 trials a GPU", 190.0), ("trials that share a GPU", 2))
    ]


def test_launches_and_bits_have_their_rows(monkeypatch):
    from benchmarks import gpu_launches
    from search_space.backbone import Backbone

    backbone = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=50, seq_len=8)
    for name in ("SEQUENCES", "BATCH"):
        monkeypatch.setattr(gpu_launches, name, 2)
    monkeypatch.setattr(gpu_launches, "timed", lambda steps, device: dict.fromkeys(steps, 1e-3))
    monkeypatch.setattr(gpu_launches, "counted", lambda work, device: work() is None)
    rows = {r.name: r for r in gpu_launches.rows("float32", "cpu", ["pkm"], backbone)}
    assert rows["pkm: launches a layer, float32"].value == 0
    assert rows["pkm: bits again, float32"].value == "equal"
    assert rows["pkm: a step of 2 sequences, float32"].value == 1
    made = gpu_launches.made

    def another(*arguments):  # the third is of another seed
        seeds.append(len(seeds) == 4)
        run = made(*arguments)
        if seeds[-1]:
            next(run.model.parameters()).data.add_(1e-6)
        return run

    seeds: list[bool] = []
    monkeypatch.setattr(gpu_launches, "made", another)
    rows = {r.name: r for r in gpu_launches.rows("float32", "cpu", ["pkm"], backbone)}
    assert rows["pkm: bits again, float32"].holds
    assert not rows["pkm: bits without a graph, float32"].holds


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what to do where there is no GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 2
    assert "--interpret runs toy sizes on the CPU" in " ".join(done.stderr.split())
