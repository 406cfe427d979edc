"""Compile a kernel for a GPU that is not here, and read what the compiler made of it."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from dataclasses import dataclass

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.catalog_entry import Entry
from workers.kernels.triton.config import Config

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx950": GPUTarget("hip", "gfx950", 64),
}
# Bytes that one program may use: CUDA C programming guide, compute capabilities; CDNA 3 and 4 ISA.
SHARED_LIMIT = {
    "sm_80": 163 * 1024,
    "sm_90": 227 * 1024,
    "sm_100": 227 * 1024,
    "gfx942": 64 * 1024,
    "gfx950": 160 * 1024,
}
MATRIX = {
    "sm_80": r"mma\.sync",
    "sm_90": r"wgmma\.mma_async",
    "sm_100": r"tcgen05\.mma",
    "gfx942": r"v_mfma_",
    "gfx950": r"v_mfma_",
}
WIDE_ROWS = 64  # the fewest rows that wgmma and tcgen05 take; narrower tiles use mma.sync


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel.

    spills, stack, shared: in bytes (spills on AMD: registers).
    matrix: instructions.
    load_bytes: the widest global load of one thread.
    """

    spills: int
    stack: int
    shared: int
    registers: int
    matrix: int
    load_bytes: int


def compile_for(entry: Entry, config: Config, target: str, dtype: str = "bf16") -> Compiled:
    """Compile one configuration; raises what the compiler raises."""
    signature, constants, attributes = entry.source(config, dtype)
    source = ASTSource(entry.kernel, signature, constants, attributes)
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    log = io.StringIO()
    # A cached binary would come without its assembler's log.
    with (
        tempfile.TemporaryDirectory() as cache,
        triton.knobs.cache.scope(),
        triton.knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
    ):
        triton.knobs.cache.dir = cache
        triton.knobs.nvidia.dump_ptxas_log = True
        compiled = triton.compile(source, target=TARGETS[target], options=options)
    if target.startswith("gfx"):
        return _read_amd(compiled, MATRIX[target])
    narrow = entry.product and config[entry.product] < WIDE_ROWS
    return _read_nvidia(compiled, log.getvalue(), MATRIX["sm_80" if narrow else target])


def _read_nvidia(compiled, log: str, matrix: str) -> Compiled:
    text = compiled.asm["ptx"]
    loads = [
        int(vector or 1) * int(bits) // 8
        for vector, bits in re.findall(r"ld\.global[\w.:]*?(?:\.v(\d))?\.[bufs](\d+)", text)
    ]
    loads += [int(size, 0) for size in re.findall(r"cp\.async\.c[ag].*?\], (\w+)", text)]
    return Compiled(
        spills=sum(map(int, re.findall(r"(\d+) bytes spill", log))),
        stack=_last(r"(\d+) bytes stack frame", log),
        shared=compiled.metadata.shared,
        registers=_last(r"Used (\d+) registers", log),
        matrix=len(re.findall(matrix, text)),
        load_bytes=max(loads, default=0),
    )


def _read_amd(compiled, matrix: str) -> Compiled:
    text = compiled.asm["amdgcn"]
    words = re.findall(r"(?:global|buffer)_load_(?:lds_)?dword(?:x(\d))?\b", text)
    return Compiled(
        spills=_last(r"\.vgpr_spill_count:\s+(\d+)", text)
        + _last(r"\.sgpr_spill_count:\s+(\d+)", text),
        stack=_last(r"\.private_segment_fixed_size:\s+(\d+)", text),
        shared=compiled.metadata.shared,
        registers=_last(r"\.vgpr_count:\s+(\d+)", text),
        matrix=len(re.findall(matrix, text)),
        load_bytes=max((4 * int(count or 1) for count in words), default=0),
    )


def _last(pattern: str, text: str) -> int:
    """The last number that fits; a missing one is an error, never a silent 0."""
    found = re.findall(pattern, text)
    if not found:
        raise ValueError(f"the compiler's output has no {pattern!r}")
    return int(found[-1])
