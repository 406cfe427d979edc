"""Which device a name means, and whether it is there."""

from __future__ import annotations

import torch

from search_space.errors import InputError, require, shown


def resolve_device(device: str) -> str:
    """`auto` is a GPU where this process sees one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


CONTEXT = 0.08  # of a share: the memory of CUDA's contexts, which no allocator counts


def limit_memory(share: float) -> None:
    """Take at most this share of the GPU's memory from now on; more is out of memory.

    share: in (0, 1]. Nothing happens without a GPU.
    """
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share * (1 - CONTEXT) if share < 1 else 1.0)


def present_device(name: str) -> str:
    """`resolve_device`, once the device is known to be there. InputError where it is not."""
    device = resolve_device(name)
    way_out = "choose auto, cpu or cuda"
    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        raise InputError(f"device {shown(name)} is none that torch knows; {way_out}") from None
    require(kind in ("cpu", "cuda"), f"device {shown(name)} trains no model here; {way_out}")
    if kind == "cuda":
        seen = torch.cuda.device_count()
        require(
            (index or 0) < seen,
            f"device {shown(name)} is not there: {seen} GPUs are seen here; {way_out}",
        )
    return device
