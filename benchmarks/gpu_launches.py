"""What a GPU says of a step of each preset: its launches a layer, whether its bits are the same
again and without a graph, and how long it takes at a study's own batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_steps import SEQUENCES, timed, training
from benchmarks.report import Row
from benchmarks.train import PROXY
from search_space.backbone import Backbone
from search_space.contract import Precision, Recipe
from search_space.presets import PRESETS
from workers.training.graph import sent
from workers.training.loop import Training

DEPTHS = 2, 4
WARM, STEPS = 3, 12
BATCH = Recipe().batch_size


def rows(
    precision: Precision,
    device: str,
    presets: Sequence[str] = tuple(PRESETS),
    backbone: Backbone = PROXY,
) -> Iterator[Row]:
    """Of each preset; copies and fills that are launched by themselves count, too."""
    for name in presets:
        few, many = (
            launched(
                made(name, dataclasses.replace(backbone, n_layers=n), SEQUENCES, precision, device)
            )
            for n in DEPTHS
        )
        a_layer = (many - few) / (DEPTHS[1] - DEPTHS[0])
        yield Row(f"{name}: launches a layer, {precision}", a_layer)
        runs = [made(name, backbone, BATCH, precision, device) for _ in range(3)]
        runs[2].graphed = None
        first, *others = [after(run, STEPS) for run in runs]
        same = [all(map(torch.equal, first, other)) for other in others]
        for what, holds in zip(("again", "without a graph"), same, strict=True):
            said = "equal" if holds else "different"
            yield Row(f"{name}: bits {what}, {precision}", said, bar="equal", holds=holds)
        took = timed({name: runs[0].step}, device)[name]
        yield Row(f"{name}: a step of {BATCH} sequences, {precision}", 1e3 * took, "ms")


def made(
    name: str, backbone: Backbone, sequences: int, precision: Precision, device: str
) -> Training:
    """A preset's training, from its first step."""
    return training(PRESETS[name](backbone), backbone, sequences, precision, device)


def after(run: Training, steps: int) -> list[Tensor]:
    """The weights after so many steps."""
    for _ in range(steps):
        run.step()
    return [p.detach().clone() for p in run.model.parameters()]


def launched(run: Training) -> int:
    """What forward and backward of a step launch, when kernels are tuned and libraries ready."""
    run.graphed = None
    after(run, WARM)
    request = run.request
    batch = run.corpus.batch(0, 0, request.recipe.batch_size, request.backbone.seq_len)
    inputs, targets = (sent(x, request.device) for x in batch)
    precision = request.recipe.precision
    return counted(
        lambda: run.batch_step(run.model, inputs, targets, request.device, precision),
        request.device,
    )


def counted(work: Callable[[], object], device: str) -> int:
    """Kernels, copies and fills of `work` on a GPU, as its driver reports them; 0 on a CPU."""
    activities = [ProfilerActivity.CPU]
    if torch.device(device).type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities) as seen:
        work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
    events = seen.events() or []
    return sum(e.device_type == DeviceType.CUDA and not e.is_user_annotation for e in events)
