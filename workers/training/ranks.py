"""The processes of one training (torchrun's ranks): each holds a part of the weights (FSDP2) and
reads its part of every batch, so that a step is the one that a single process would take.

N sequences.
"""

from __future__ import annotations

import copy
import datetime
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from search_space.errors import require
from workers.kernels.settings import Backend, override
from workers.layers.declared import declared
from workers.layers.whole_batch import spread_over
from workers.model import LanguageModel, Output
from workers.training.parts import InParts
from workers.training.shards import gathered

# Of a wait for the others: one writes and checks a model while they wait.
PATIENCE = datetime.timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training.

    rank: 0 writes all files and says all words.
    count: of processes; 1 for one that torchrun did not start.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def largest(self, numbers: list[float]) -> list[float]:
        """The largest of each number over all processes."""
        if self.count == 1:
            return numbers
        found = torch.tensor(numbers, dtype=torch.float64, device=_device())
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [float(number) for number in found]

    def sum(self, number: float) -> float:
        """Of all processes."""
        if self.count == 1:
            return number
        found = torch.tensor(number, dtype=torch.float64, device=_device())
        dist.all_reduce(found)
        return float(found)

    def mean(self, tensor: Tensor) -> Tensor:
        """Over all processes; each must ask, and go backward through it, in the same order."""
        found: Tensor = _Mean.apply(tensor)  # type: ignore[no-untyped-call]
        return found

    def share_counts(self, model: nn.Module) -> None:
        """Give every layer what the backwards of all processes have counted, in their order."""
        layers = [layer for _, layer in declared(model)]
        mine = [_moved(layer.counted, "cpu") for layer in layers]
        if not any(mine):  # nor has any other process
            return
        theirs: list[Any] = [None] * self.count
        dist.all_gather_object(theirs, mine)
        device = next(model.parameters()).device
        for layer, parts in zip(layers, zip(*theirs, strict=True), strict=True):
            layer.counted = [_moved(count, device) for part in parts for count in part]

    def check_batch(self, batch_size: int) -> None:
        """Raise InputError unless each process has as many sequences of a batch."""
        require(
            batch_size % self.count == 0,
            f"each process reads as many sequences of a batch: batch_size {batch_size} is not a "
            f"multiple of {self.count} processes; choose another in --recipe",
        )


ALONE = Ranks()


def started() -> bool:
    """Whether torchrun started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """This process among the others, and its own device; alone unless torchrun started it.

    A process group that is there already is used, and stays.
    """
    if not started():
        yield ALONE, device
        return
    on_cpu = torch.device(device).type == "cpu"
    if not on_cpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo" if on_cpu else "nccl", timeout=PATIENCE)
    try:
        # numba reads weights as numpy does, which forbids FSDP to let go of them.
        with override(backend=Backend.TORCH) if on_cpu else nullcontext():
            yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        if ours:
            dist.destroy_process_group()


def shard(model: LanguageModel, ranks: Ranks, device: str) -> None:
    """Leave of every parameter this process's part; a layer is gathered while it is computed.

    model: whole, the same in every process, on its device.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard
    from torch.utils._pytree import SUPPORTED_NODES, register_dataclass

    if Output not in SUPPORTED_NODES:
        register_dataclass(Output)
    # A layer's output is a view that nothing writes to.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(torch.device(device).type, (ranks.count,))

    def cut(p: nn.Parameter) -> Any:
        """Between matrices where there are enough of them, else within."""
        few = p.dim() > 2 and p.shape[0] < ranks.count
        return Shard(1) if few and p.shape[1] % ranks.count == 0 else Shard(0)

    for layer in model.blocks:
        fully_shard(layer, mesh=mesh, shard_placement_fn=cut)
    fully_shard(model, mesh=mesh, shard_placement_fn=cut)


def without_values(model: LanguageModel) -> LanguageModel:
    """A copy whose parameters take no memory, to put those of a sharded model into at last."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def rest(model: nn.Module) -> None:
    """Let go of what the last forward has gathered, so that parameters are this process's part."""
    reshard: Callable[[], None] | None = getattr(model, "reshard", None)
    if reshard is not None:
        reshard()


def whole_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded model, whole and on the CPU; every process must ask."""
    rest(model)
    return {name: gathered(tensor).cpu() for name, tensor in model.state_dict().items()}


@dataclass(frozen=True)
class InRanks:
    """A `BatchStep` in which each process reads its part of the batch, some sequences at a time.

    The loss that it returns, and the gradients, are the batch's. What a layer computes of all
    tokens at once is of those that all processes read at once: the batch, unless it is in parts.

    sequences: that are read at once; 0 for all of the process's.
    """

    ranks: Ranks
    sequences: int

    def __call__(self, model: LanguageModel, *batch: Any) -> float:
        """As `train_step`."""
        inputs, targets, device, precision = batch
        count = len(inputs) // self.ranks.count
        mine = slice(self.ranks.rank * count, (self.ranks.rank + 1) * count)
        read = InParts(self.sequences or count)
        # Gradients are averaged over the processes, which have as many sequences each.
        with spread_over(self.ranks.mean):
            mean = float(read(model, inputs[mine], targets[mine], device, precision))
        self.ranks.share_counts(model)
        return self.ranks.sum(mean / self.ranks.count)


class _Mean(torch.autograd.Function):
    """The mean of a tensor over all processes. A process's loss depends on the tensors of all, and
    gradients are averaged over processes at last: so the gradient is the mean of theirs, too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _averaged(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _averaged(gradients[0])


def _averaged(tensor: Tensor) -> Tensor:
    found = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found)
    return found / dist.get_world_size()


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _moved(count: Any, device: str | torch.device) -> Any:
    """A layer's count on another device: a tensor, a number, or several of them."""
    if isinstance(count, Tensor):
        return count.to(device)
    if isinstance(count, (list, tuple)):
        return type(count)(_moved(each, device) for each in count)
    return count
