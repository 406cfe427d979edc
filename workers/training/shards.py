"""Tensors of which a process holds a part: the part, the whole, and a whole put into its parts.

A sharded tensor is torch's DTensor over one dimension of processes, cut along one of its own. All
of this is the identity on any other tensor. torch.distributed.tensor takes a second to import, so
nobody loads it who trains in one process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workers.kernels.place import kind


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of it."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """This process's part; it shares memory with the tensor."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return part


def whole(tensor: Tensor) -> Tensor:
    """All of it. Every process of the tensor must ask."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def gathered(tensor: Tensor) -> Tensor:
    """A sharded tensor whole and on the CPU; any other as it is. Every process must ask."""
    return whole(tensor).cpu() if is_sharded(tensor) else tensor


def put(target: Tensor, values: Tensor) -> None:
    """Copy a whole tensor's values, which every process has, into a tensor that may be sharded."""
    local(target).copy_(part_of(values, target))


def part_of(values: Tensor, like: Tensor) -> Tensor:
    """What this process would hold of `values` if they were cut as `like` is."""
    if not is_sharded(like):
        return values
    start, length, dim = extent(like)
    return values.narrow(dim, start, length)


def placed_as(values: Tensor, like: Tensor) -> Tensor:
    """Whole values on the device of `like`, and cut as it is where they have its dim.

    values: of its shape, of that of its rows, or one number.
    """
    values = values.to(like.device)
    if not is_sharded(like) or not values.dim():
        return values
    if values.dim() == 1 and like.dim() > 1:  # a number a row, in one list
        values = values.view(like.shape[:-1])
    from torch.distributed.tensor import DTensor

    sharded: Any = like
    part = part_of(values, like).contiguous()
    placed: Tensor = DTensor.from_local(
        part,
        sharded.device_mesh,
        sharded.placements,
        run_check=False,
        shape=values.shape,
        stride=values.stride(),
    )
    return placed


def extent(tensor: Tensor) -> tuple[int, int, int]:
    """Where this process's part of a sharded tensor begins, how long it is, and along which dim."""
    sharded: Any = tensor
    (placement,) = sharded.placements
    dim = int(placement.dim)
    size, count = tensor.shape[dim], sharded.device_mesh.size()
    chunk = -(-size // count)  # as torch.chunk cuts
    start = min(size, chunk * sharded.device_mesh.get_local_rank())
    return start, min(chunk, size - start), dim


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The norm of all tensors as one, over all processes."""
    if not any(is_sharded(t) for t in tensors):
        if tensors and kind(tensors[0]) != "cpu":
            norms: list[Tensor] = list(torch._foreach_norm(tensors))
            norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
            return norm
        return torch.nn.utils.get_total_norm(tensors)
    squares = torch.stack([local(t).double().square().sum() for t in tensors]).sum()
    mesh = next(t for t in tensors if is_sharded(t)).device_mesh  # type: ignore[attr-defined]
    torch.distributed.all_reduce(squares, group=mesh.get_group())
    return squares.sqrt().float()
