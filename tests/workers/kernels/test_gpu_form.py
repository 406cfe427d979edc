"""The forms that a GPU takes compute what the CPU's own do, in an interpreter process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from depth import LONG

pytestmark = pytest.mark.slow

pytest.importorskip("triton", reason="the Triton forms need triton")

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).with_name("interpreter_gpu_form.py")
LEAST = {"GPU form, layer": 42, "GPU form, step": 19}  # a check that is lost must not look held


def outcomes_of(*options):
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHECKS), *options],
        capture_output=True,
        text=True,
        env=env,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def outcomes():
    return outcomes_of()


def test_the_first_layer_and_the_first_step_agree():
    found = outcomes_of("--first")
    assert [check["operation"] for check in found] == list(LEAST)
    assert [check for check in found if check["error"]] == []


@LONG
@pytest.mark.parametrize("operation", LEAST)
def test_it_agrees_with_the_cpus_own_form(outcomes, operation):
    checks = [check for check in outcomes if check["operation"] == operation]
    failed = [f"{check['case']}: {check['error']}" for check in checks if check["error"]]
    assert not failed, f"{len(failed)} of {len(checks)}: {failed[0]}"
    assert len(checks) >= LEAST[operation]
