"""Two processes train as one does, and either goes on with what the other has kept."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from depth import LONG
from model_tools import DENSE, cut_of, small_llama, write_form, write_model
from patience import WAIT_S
from safetensors.torch import load_file

from nas.models.directory import ModelDirectory
from nas.models.order import Order
from nas.models.train import train_model
from search_space.contract import Recipe
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.cuts import CUTS
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.kernels.settings import Backend, override

pytestmark = LONG

STEPS, MORE = 20, 26
SPECS = {
    "dense": dataclasses.replace(DENSE, gated=True, activation="silu"),
    # Three of six experts lie in a process: its first one's turn is another's.
    "topk": FFNSpec(d_ff=96, expert_width=16, selection=TopK(k=2, bias_rate=0.01)),
    # Products of two means over the batch, and of one mean with its logarithm.
    "balanced": FFNSpec(
        d_ff=128,
        expert_width=32,
        selection=TopK(k=2, balance_weight=0.03, z_weight=0.001, entropy_weight=0.01),
    ),
    "relu": FFNSpec(d_ff=128, expert_width=32, selection=ReLURouting(target_activity=0.5)),
    # Queries are normed by the batch's mean and variance.
    "rows": FFNSpec(
        d_ff=256, expert_width=1, selection=ProductKey(heads=2, k=4, key_dim=8, query_norm="batch")
    ),
}
RECIPE = {"batch_size": 4, "precision": "float32", "warmup": 3, "lr": 0.02, "matrix_lr": 0.02}


NAMES = [*SPECS, "cut"]


def flops(folder, steps):
    model = ModelDirectory.open(folder)
    return step_flops(model.spec, model.backbone, 4) * (steps + 0.5)


@pytest.fixture(scope="module")
def both(small, tmp_path_factory):
    """Every design by two processes and by one, in folders of their own."""
    folder = tmp_path_factory.mktemp("ranks")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFN_NAS_CACHE", str(folder / "cache"))
        kept = SimpleNamespace(folder=folder, small=small)

        def command(name, out, steps):
            given = {"corpus": small.source, "to": folder / out, "threads": 1}
            given |= {"flops": repr(flops(folder / name, steps)), "eval-tokens": 512}
            given |= {"recipe": ",".join(f"{k}={v}" for k, v in RECIPE.items())}
            options = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
            return ["train", str(folder / name), *options, "--no-verify"]

        for name, spec in SPECS.items():
            write_model(folder / name, spec)
        llama, backbone = small_llama(folder / "base")
        spec = CUTS["dsmoe"](backbone)
        write_form(folder / "cut", cut_of(llama, spec, backbone), spec, backbone)
        with override(backend=Backend.TORCH):
            alone(kept, "topk", folder / "topk-more")
        commands = [command(name, f"{name}-2", STEPS) for name in NAMES]
        commands.append(command("topk", "topk-more", MORE))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        script = str(Path(__file__).with_name("train_in_ranks.py"))
        done = subprocess.run(
            [*launcher, script, json.dumps(commands)],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=WAIT_S,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        with override(backend=Backend.TORCH):
            yield SimpleNamespace(folder=folder, small=small, told=done)
    torch.set_num_threads(threads)


def alone(both, name, out, steps=STEPS):
    """One process."""
    order = Order(
        source=both.folder / name,
        corpus=CorpusSpec(source=str(both.small.source)),
        flops=flops(both.folder / name, steps),
        out=out,
        recipe=Recipe(**RECIPE),
        threads=1,
        eval_tokens=512,
        verify=False,
    )
    return train_model(order, lambda text: None, lambda point: None)


def losses(out):
    lines = (out / "training/log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_losses_of_one(both, name):
    result = alone(both, name, both.folder / f"{name}-1")
    ours, theirs = losses(both.folder / f"{name}-2"), losses(both.folder / f"{name}-1")
    assert len(ours) == len(theirs) >= STEPS
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert theirs[-1] < theirs[0] - 1
    told = json.loads((both.folder / f"{name}-2/training/result.json").read_text())
    assert told["bits_per_byte"] == pytest.approx(result["bits_per_byte"], abs=1e-4)
    weights = [load_file(both.folder / f"{name}-{n}/model.safetensors") for n in (1, 2)]
    for tensor, values in weights[0].items():
        torch.testing.assert_close(weights[1][tensor], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["topk", "rows"])
def test_one_process_goes_on_from_what_two_have_kept(both, name, tmp_path):
    more = alone(both, name, both.folder / f"{name}-2", MORE)
    alone(both, name, tmp_path / "model")
    at_once = alone(both, name, tmp_path / "model", MORE)
    assert more["steps"] == at_once["steps"]
    assert losses(both.folder / f"{name}-2") == pytest.approx(losses(tmp_path / "model"), abs=1e-4)


def test_two_processes_go_on_from_what_one_has_kept(both, tmp_path):
    alone(both, "topk", tmp_path / "model")
    alone(both, "topk", tmp_path / "model", MORE)
    ours, theirs = losses(both.folder / "topk-more"), losses(tmp_path / "model")
    assert len(ours) == MORE and ours == pytest.approx(theirs, abs=1e-4)


def test_one_process_speaks_for_both(both):
    assert both.told.stdout.count("tokens per second") == len(NAMES) + 1
    assert both.told.stderr.count("reading the weights") == len(NAMES) + 1
