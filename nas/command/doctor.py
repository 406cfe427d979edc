"""What this machine has, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from nas.process import interrupts
from nas.process.child import run_child
from nas.store import NeedsMigration, NoStudiesYet, Store
from search_space.errors import InputError, WorkFailed, require
from search_space.machine import usable_cpus
from search_space.places import cache_dir

PACKAGES = ("torch", "triton", "optuna", "ray", "sqlalchemy", "streamlit", "datasets")


def checks(db: str) -> list[dict[str, Any]]:
    """Rows of check, state (ok, note or broken) and what was found."""
    rows = [_row("python", "ok", sys.version.split()[0])]
    rows += [_package(name) for name in PACKAGES]
    rows += [_processors(), _accelerator(), *_kernels(), _ray(), _database(db), _cache()]
    return rows


def _row(check: str, state: str, found: str) -> dict[str, Any]:
    return {"check": check, "state": state, "found": " ".join(found.split())}


def _package(name: str) -> dict[str, Any]:
    try:
        return _row(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        missing = "note" if name == "triton" else "broken"
        return _row(name, missing, f"not installed; pip install {name}")


def _processors() -> dict[str, Any]:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    cores, there = usable_cpus(), os.cpu_count() or 1
    of = f" of {there}" if cores < there else ""
    return _row("cpu", "ok", f"{cores}{of} cores, {capability}")


def _accelerator() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return _row("gpu", "note", "none: trials run on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return _row("gpu", "ok", ", ".join(names))


def _kernels() -> list[dict[str, Any]]:
    # In a process of its own: a kernel that crashes must not take this command with it.
    command = [sys.executable, "-m", "workers.kernels"]
    done = run_child(command)
    if done.returncode:
        return [_row("kernels", "broken", f"the kernels' check ended with {done.returncode}")]
    kernels, products, precision = done.stdout.splitlines()
    return [
        _row("kernels", "note" if kernels.startswith("torch") else "ok", kernels),
        _row("products", "ok", products),
        _row("precision", "ok", f"auto is {precision}"),
    ]


def gpu_checks() -> list[dict[str, Any]]:
    """The same rows of this machine's GPUs: the kernels, a whole training step, shares of their
    bandwidth and arithmetic. Raises InputError where there is no GPU."""
    import torch

    require(
        torch.cuda.is_available(),
        "--gpu checks a GPU, and torch sees none here: without it, nas doctor says what there is",
    )
    # In a process of its own, as above.
    done = run_child([sys.executable, "-m", "workers.gpu_report"])
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        rows.append(_row("gpu", "broken", f"its check ended with {done.returncode}: {last}"))
    return rows


def _ray() -> dict[str, Any]:
    from nas.running.ray_pool import RayPool

    with interrupts.held():  # a signal before `close` would leave its processes
        try:
            pool = RayPool(count=1)
        except (InputError, WorkFailed) as error:
            return _row("workers", "broken", str(error))
        pool.close()
    return _row("workers", "ok", "a local Ray starts and its worker answers")


def _database(db: str) -> dict[str, Any]:
    try:
        with Store.open(db, create=False) as store:
            found, file = f"{store.url}, {len(store.studies())} studies", store.file
    except NoStudiesYet as error:
        return _row("database", "ok", str(error))
    except NeedsMigration as error:
        return _row("database", "note", str(error))
    except (InputError, WorkFailed) as error:
        return _row("database", "broken", str(error))
    if file is not None and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return _row("database", "note", f"{found}; read only: nas launch needs another --db")
    return _row("database", "ok", found)


def _cache() -> dict[str, Any]:
    try:
        folder = cache_dir()
    except InputError as error:
        return _row("cache", "broken", str(error))
    existing: Path = next(p for p in [folder, *folder.parents] if os.path.exists(p))
    if not os.access(existing, os.W_OK):
        return _row("cache", "broken", f"{folder} is not writable; set FFN_NAS_CACHE")
    free = shutil.disk_usage(existing).free / 2**30
    return _row("cache", "ok" if free > 2 else "note", f"{folder}, {free:.0f} GiB free")
