"""Every Triton kernel and configuration against float64, in an interpreter process of its own."""

from __future__ import annotations

import collections
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
CHECKS = Path(__file__).with_name("interpreter_checks.py")
# At least this many checks each: a check that is lost must not look like one that holds.
LEAST = {
    "grouped product": 36,
    "weight gradient": 18,
    "expert products": 18,
    "expert choice": 11,
    "order of pairs": 6,
    "ReLU choice": 2,
    "threshold gates": 4,
    "opcheck, router": 7,
    "row sum": 18,
    "row dot": 18,
    "row gradient": 12,
    "product key": 24,
    "spread": 8,
    "gated activation": 24,
    "RMSNorm": 12,
    "residual norm": 16,
    "cross-entropy": 8,
    "opcheck": 5,
    "flops": 1,
    "dispatch": 2,
    "expert FFN": 12,
    "linear cross-entropy": 4,
    "opcheck, fused": 6,
    "flops, fused": 1,
    "dispatch, fused": 2,
    "model": 5,
    "self-check": 1,
}


def outcomes_of(*options):
    # The variable must be set before triton is first imported.
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    # Its arrays are tiny: more threads only wait for one another.
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHECKS), *options],
        capture_output=True,
        text=True,
        env=env,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    by_operation = collections.defaultdict(list)
    for line in done.stdout.splitlines():
        check = json.loads(line)
        by_operation[check["operation"]].append(check)
    return by_operation


@pytest.fixture(scope="module")
def outcomes():
    return outcomes_of()


def test_the_first_case_of_each_agrees_with_float64():
    found = outcomes_of("--first")
    assert {operation: len(checks) for operation, checks in found.items()} == dict.fromkeys(
        LEAST, 1
    )
    assert [check for (check,) in found.values() if check["error"]] == []


@LONG
@pytest.mark.parametrize("operation", LEAST)
def test_it_agrees_with_float64(outcomes, operation):
    checks = outcomes[operation]
    failed = [f"{check['case']}: {check['error']}" for check in checks if check["error"]]
    assert not failed, f"{len(failed)} of {len(checks)}: {failed[0]}"
    assert len(checks) >= LEAST[operation]


@LONG
def test_no_operation_is_left_unnamed(outcomes):
    assert set(outcomes) == set(LEAST)
