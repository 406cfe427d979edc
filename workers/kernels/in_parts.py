"""A check of a GPU in parts, each in a process of its own.

They run side by side, for most of a check is a compiler's work; and a kernel that crashes takes
nobody with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import torch

from search_space.machine import usable_cpus

PARTS = 16  # at most: each holds a context on the GPU


def fault_in_parts(module: str, device: torch.device, jobs: int, *arguments: str) -> str:
    """What `python -m MODULE DEVICE PART PARTS *arguments` found to be wrong, of the first part
    that found anything; "" for nothing.

    jobs: that the parts share.
    """
    parts = max(1, min(usable_cpus(), PARTS, jobs))
    index = torch.cuda.current_device() if device.index is None else device.index
    command = [sys.executable, "-m", module, f"cuda:{index}"]
    with _processes(
        [[*command, str(part), str(parts), *arguments] for part in range(parts)]
    ) as all_:
        return next(filter(None, map(_answer, all_)), "")


def tell(fault: str) -> None:
    """A part's answer, for the process that asked."""
    print(json.dumps({"fault": fault}), flush=True)


@contextlib.contextmanager
def _processes(commands: list[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    made: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            made.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            )
        yield made
    finally:
        for process in made:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.wait() or not lines:
        return f"a process that checked it ended with {process.returncode}"
    return str(json.loads(lines[-1])["fault"])
