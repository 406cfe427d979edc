"""A served dashboard, and a study that goes on beside it: what measuring its pages needs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dashboard
from benchmarks.reading_store import HALVING, NAME, Shape, configuration
from nas.store import Store
from search_space.contract import EvalResult, Progress, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

END_EVERY_S = 10.0  # an evaluation ends and another begins
READY_S = 60.0
APP = Path(dashboard.__file__).parent / "server.py"


@contextmanager
def served(url: str, app: Path = APP) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The dashboard over `url`: its process and its address on the loopback.

    app: another script of Streamlit's in its place.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(app), f"--server.port={port}"]
    command += ["--server.address=127.0.0.1", "--server.fileWatcherType=none"]
    command += ["--browser.gatherUsageStats=false", "--server.headless=true"]
    environment = os.environ | {"NAS_DB": url, "PYTHONPATH": str(APP.parents[1])}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_healthy(address)
        yield process, address
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_healthy(address: str) -> None:
    """Return when the server answers; RuntimeError when it does not in READY_S seconds."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"the dashboard did not answer within {READY_S:g} seconds")


@contextmanager
def training(url: str, shape: Shape = HALVING) -> Iterator[None]:
    """Two evaluations report every second, and one ends every END_EVERY_S seconds."""
    over = threading.Event()
    writer = threading.Thread(target=_train, args=(url, shape, over))
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def _train(url: str, shape: Shape, over: threading.Event) -> None:
    with Store.open(url) as store:
        study = Training(store, shape)
        running, step = {study.begin(): 0, study.begin(): 0}, 0
        while not over.wait(1.0):
            step += 1
            for id in running:
                running[id] += 1
                study.report(id, running[id])
            if step % END_EVERY_S == 0:
                oldest = next(iter(running))
                del running[oldest]
                study.end(oldest)
                running[study.begin()] = 0
        for id in running:
            study.end(id)


class Training:
    """Begins, reports and ends evaluations of the made-up study at its lowest rung."""

    STEPS = 200

    def __init__(self, store: Store, shape: Shape) -> None:
        config = configuration(1, shape)
        self._store, self._backbone = store, config.backbone
        self._level = config.plan().levels[0]
        self._study, self._begun = store.study(NAME), 0

    def begin(self) -> int:
        """A new trial; returns its evaluation."""
        self._begun += 1
        spec = FFNSpec(d_ff=8 * self._begun, lr_multiplier=1.25)
        cost = model_cost(spec, self._backbone).to_dict()
        more = {"seed": 0, "source": "tpe", "params": {}, "cost": cost}
        return self._store.add_trial(self._study.id, spec, until_flops=self._level, **more)[1].id

    def report(self, id: int, step: int) -> None:
        """A point of its curve."""
        share = step / self.STEPS
        at = {"step": step, "steps": self.STEPS, "flops": self._level * share}
        point = Progress(evaluation=id, loss=3 + 4 / step, seconds=float(step), **at)
        self._store.add_progress([point])

    def end(self, id: int) -> None:
        """It finishes."""
        measures = {"bits_per_byte": 4.9, "bits_per_byte_se": 0.01, "flops": self._level}
        self._store.end_evaluation(EvalResult(evaluation=id, status=Status.FINISHED, **measures))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """The most bytes that a process has held in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc says nothing of the memory of process {pid}")
