"""Experts with gates on their outputs: every kernel against float64 in an interpreter process, and
the torch forms on a CPU and as a GPU without kernels has them."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch
from depth import LONG
from patience import WAIT_S

from workers.kernels.api.output_gate import output_gated_ffn
from workers.kernels.pairs import Pairs
from workers.kernels.place import as_on
from workers.kernels.settings import Backend, override
from workers.layers.experts import Experts
from workers.layers.routing import open_pairs

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).with_name("interpreter_output_gate.py")
# At least this many checks each: a check that is lost must not look like one that holds.
LEAST = {
    "output gates, kernels": 22,
    "output gates": 10,
    "output gates, dispatch": 1,
    "output gates, opcheck": 4,
    "output gates, flops": 1,
}
T, D, B, G = 7, 6, 3, 5


@pytest.fixture(scope="module")
def outcomes():
    pytest.importorskip("triton", reason="the Triton forms need triton")
    # The variable must be set before triton is first imported.
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHECKS)], capture_output=True, text=True, env=env, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    by_operation = collections.defaultdict(list)
    for line in done.stdout.splitlines():
        check = json.loads(line)
        by_operation[check["operation"]].append(check)
    return by_operation


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("operation", LEAST)
def test_it_agrees_with_float64(outcomes, operation):
    checks = outcomes[operation]
    failed = [f"{check['case']}: {check['error']}" for check in checks if check["error"]]
    assert not failed, f"{len(failed)} of {len(checks)}: {failed[0]}"
    assert len(checks) >= LEAST[operation]


@LONG
@pytest.mark.slow
def test_no_operation_is_left_unnamed(outcomes):
    assert set(outcomes) == set(LEAST)


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_the_torch_form_is_the_definition(gated, routed):
    x, gate = normal(T, D, seed=0), normal(B, D, seed=4)
    keys, gates, values = (normal(B, G, D, seed=seed) for seed in (1, 2, 3))
    counts, token_P = [4, 0, 3], torch.tensor([0, 2, 2, 6, 1, 2, 5])
    pairs = Pairs(token_P, counts) if routed else Pairs(None, [T] * B)
    weight = normal(*((7, 1) if routed else (T, B)), seed=5)
    seen = []
    given = x, keys, gates if gated else None, values, gate
    got = output_gated_ffn(*given, pairs, weight, "gelu", seen.append)
    if routed:
        expert_P = [0] * 4 + [2] * 3
        read = zip(token_P.tolist(), expert_P, weight[:, 0], strict=True)
    else:
        read = ((t, b, weight[t, b]) for t in range(T) for b in range(B))
    want = reference.output_gated_ffn(*given, list(read), "gelu")
    torch.testing.assert_close(got, want)
    leaves = [t for t in (*given, weight) if t is not None]
    dy = torch.linspace(-1, 1, got.numel(), dtype=torch.float64).view(got.shape)
    for a, b in zip(
        torch.autograd.grad(got, leaves, dy), torch.autograd.grad(want, leaves, dy), strict=True
    ):
        torch.testing.assert_close(a, b)
    assert sum(h.numel() for h in seen) == (7 * G if routed else T * B * G)


def test_room_for_pairs_is_left_out_where_the_torch_form_runs_on_a_gpu():
    """Open gates have room for all pairs there."""
    layer = Experts(D, B, 8, activation="silu", gated=True, output_gate=True)
    for seed, p in enumerate(layer.parameters()):
        p.data = normal(*p.shape, seed=seed).detach().float()
    x_TD, weight_TB = (normal(*s, seed=9).detach().float() for s in ((T, D), (T, B)))
    open_TB = torch.tensor([[True, False, False], [False] * 3] * 3 + [[True, False, True]])
    results = []
    for kind in ("cpu", "cuda"):
        weight = weight_TB.clone().requires_grad_()
        with as_on(kind), override(backend=Backend.TORCH):
            routing = open_pairs(weight * open_TB, open_TB)
            y_TD = layer(x_TD, routing)
            results.append([y_TD, *torch.autograd.grad(y_TD.sum(), [weight, *layer.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert not results[0][0][1].any() and results[0][0][0].all()
