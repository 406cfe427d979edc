"""Whether a device computes a training step rightly: checked before a study trusts a GPU.

The kernels are checked one by one (`workers.kernels.selfcheck`). This checks them together, as a
proxy uses them: forward, backward and the optimizers' step of small designs, against the torch
forms on the CPU in float32.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.errors import InputError, WorkFailed
from search_space.places import KERNELS
from search_space.presets import PRESETS
from search_space.rates import AT_BASE
from search_space.spec import FFNSpec
from workers.kernels.in_parts import fault_in_parts, tell
from workers.kernels.remembered import alone, passed, remember
from workers.kernels.settings import Backend, cache_folder, override
from workers.kernels.switch import exact_products
from workers.model import ProxyLM
from workers.training.initial import draw_by_name
from workers.training.loop import train_step
from workers.training.optimizers import Optimizers

log = logging.getLogger(__name__)

# The largest error of the loss, or of a gradient as a share of its tensor's largest value, and of
# the way that a parameter goes as a share of that way: float32's rounding through two layers, and
# through Muon's iterations, with room for sums in another order.
TOLERANCE, WAY_TOLERANCE = 1e-3, 2e-2
BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=97, seq_len=32)
SEQUENCES = 4


def specs() -> dict[str, FFNSpec]:
    """The presets, which among them use every kernel."""
    return {name: make(BACKBONE) for name, make in PRESETS.items()}


class _Step:
    """One step of a proxy: its loss, its gradients, and the way that its parameters went."""

    def __init__(self, spec: FFNSpec, device: torch.device) -> None:
        model = ProxyLM(spec, BACKBONE)
        draw_by_name(model, seed=0)
        model.begin_run(warmup=1)
        model = model.to(device).train()
        optimizers = Optimizers(model, Recipe(grad_clip=0.0), AT_BASE, lr_multiplier=1.0)
        ids_NL = np.random.default_rng(0).integers(
            BACKBONE.vocab_size, size=(SEQUENCES, BACKBONE.seq_len + 1)
        )
        inputs, targets = (np.ascontiguousarray(x) for x in (ids_NL[:, :-1], ids_NL[:, 1:]))
        self.loss = float(train_step(model, inputs, targets, str(device)))
        parameters = dict(model.named_parameters())
        self.gradients = {name: _here(p.grad) for name, p in parameters.items()}
        before = {name: _here(p) for name, p in parameters.items()}
        optimizers.step(1.0)
        self.ways = {name: _here(p) - before[name] for name, p in parameters.items()}


def _here(tensor: Tensor | None) -> Tensor:
    """A copy on the CPU, dense, in float64; zero for a gradient that there is not."""
    if tensor is None:
        return torch.zeros(())
    tensor = tensor.detach()
    return (tensor.to_dense() if tensor.is_sparse else tensor).cpu().double().clone()


def step_fault(device: torch.device, backend: Backend = Backend.AUTO) -> str:
    """What a step on `device` computes otherwise than the torch forms on the CPU, in words; "" for
    nothing.

    backend: of the device's forms.
    """
    if device.type == "cuda":
        return fault_in_parts(__name__, device, len(specs()), backend)
    return first_fault(device, backend)


def first_fault(device: torch.device, backend: Backend, part: int = 0, parts: int = 1) -> str:
    """As `step_fault`, of every `parts`-th design."""
    try:
        for name, spec in itertools.islice(specs().items(), part, None, parts):
            with exact_products():
                with override(backend=Backend.TORCH):
                    want = _Step(spec, torch.device("cpu"))
                with override(backend=backend, autotune=False):
                    got = _Step(spec, device)
            fault = _difference(got, want)
            if fault:
                return f"a training step of {name}: {fault}"
    except RuntimeError as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _difference(got: _Step, want: _Step) -> str:
    # Written so that NaN is a fault.
    if not abs(got.loss - want.loss) <= TOLERANCE:
        return f"the loss is {got.loss:.6g}, not {want.loss:.6g}"
    for name, true in want.gradients.items():
        error = _largest(got.gradients[name] - true) / max(_largest(true), 1e-12)
        if not error <= TOLERANCE:
            return f"the gradient of {name} is off by {error:.2g}, more than {TOLERANCE:g}"
    for name, true in want.ways.items():
        length = float(true.norm())
        error = float((got.ways[name] - true).norm()) / max(length, 1e-12)
        # Adam divides by a gradient's size: where that is rounding alone, so is the way.
        alone = _largest(want.gradients[name]) < 1e-9
        if not (error <= WAY_TOLERANCE or alone):
            return f"the step of {name} is off by {error:.2g}, more than {WAY_TOLERANCE:g}"
    return ""


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def verdict(device: torch.device) -> str:
    """`step_fault`, remembered where it was passed: by device, torch and our own lines."""
    entry = f"{torch.cuda.get_device_name(device)} torch {torch.__version__} {source_digest()}"
    path = cache_folder() / KERNELS / "step-check.json"
    if entry in passed(path):
        return ""
    with alone(path):
        if entry in passed(path):  # by the process that was waited for
            return ""
        fault = step_fault(device)
        if not fault:
            remember(path, entry)
    return fault


def source_digest() -> str:
    """Changes with any line that a step runs through."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for folder in ("", "kernels", "layers", "training"):
        for path in sorted((root / folder).glob("*.py" if not folder else "**/*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def trusted(device: str) -> Iterator[None]:
    """The body trains on a device whose steps were checked: with the torch forms where its own are
    wrong. A CPU is not asked. Raises WorkFailed where these are wrong, too."""
    backend = _trusted_backend(device) if torch.device(device).type == "cuda" else None
    with override(backend=backend) if backend else contextlib.nullcontext():
        yield


@functools.cache
def _trusted_backend(device: str) -> Backend | None:
    """The backend to force; None for whichever dispatch picks."""
    where = torch.device(device)
    try:
        fault = verdict(where)
    except InputError as error:  # there is no folder for what it remembers
        fault = str(error)
    if not fault:
        return None
    log.warning("the torch forms run on %s: %s", torch.cuda.get_device_name(where), fault)
    still = step_fault(where, Backend.TORCH)
    if still:
        raise WorkFailed(
            f"this GPU computes wrongly: {still}, with torch's own operations, too; set "
            "workers.device: cpu, and look at the driver and the GPU's memory"
        )
    return Backend.TORCH


if __name__ == "__main__":
    tell(first_fault(torch.device(sys.argv[1]), Backend(sys.argv[4]), *map(int, sys.argv[2:4])))
