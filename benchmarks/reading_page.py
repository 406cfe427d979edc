"""What a live page costs its server: one browser looks at a study whose evaluations go on."""

from __future__ import annotations

import os
import shutil
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
from benchmarks.reading_store import NAME, configuration
from benchmarks.report import Row, at_most
from nas.store import Store
from search_space.contract import EvalResult, Progress, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

PAGE_SHARE = 0.1  # of a core
END_EVERY_S = 10.0  # an evaluation ends and another begins
READY_S = 60.0


def page_rows(url: str, seconds: float) -> Iterator[Row]:
    """The share of a core that the page's server uses in `seconds`, while evaluations go on."""
    name = f"a live page's server over {seconds:g} s"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if seconds <= 0:
        yield Row(name, "not measured: it was given no time")
        return
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield Row(name, "not measured: playwright is not installed")
        return
    if browser is None:
        yield Row(name, "not measured: no chromium on this machine")
        return
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with served(url) as (process, address), sync_playwright() as driver, training(url):
        chromium = driver.chromium.launch(executable_path=browser, args=flags)
        try:
            page = chromium.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(address)
            page.wait_for_selector(".ffn-nas-chart .points path", timeout=1000 * READY_S)
            page.wait_for_timeout(5000)
            before, began = cpu_seconds(process.pid), time.monotonic()
            page.wait_for_timeout(1000 * seconds)
            share = (cpu_seconds(process.pid) - before) / (time.monotonic() - began)
            shown = page.locator("[data-testid=stException], [data-testid=stAlert]").count()
        finally:
            chromium.close()
    yield at_most(name, share, PAGE_SHARE, "cores")
    yield at_most("errors on the page", shown, 0)


@contextmanager
def served(url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The dashboard over `url`: its process and its address on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = Path(dashboard.__file__).parent / "app.py"
    command = [sys.executable, "-m", "streamlit", "run", str(app), f"--server.port={port}"]
    command += ["--server.address=127.0.0.1", "--server.fileWatcherType=none"]
    command += ["--browser.gatherUsageStats=false", "--server.headless=true"]
    environment = os.environ | {"NAS_DB": url, "PYTHONPATH": str(app.parents[1])}
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
            time.sleep(0.2)
    raise RuntimeError(f"the dashboard did not answer within {READY_S:g} seconds")


@contextmanager
def training(url: str) -> Iterator[None]:
    """Two evaluations report every second, and one ends every END_EVERY_S seconds."""
    over = threading.Event()
    writer = threading.Thread(target=_train, args=(url, over))
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def _train(url: str, over: threading.Event) -> None:
    config = configuration(1)
    level = config.plan().levels[0]
    with Store.open(url) as store:
        study = store.study(NAME)

        def begin(width: int) -> int:
            spec = FFNSpec(d_ff=width, lr_multiplier=1.25)
            cost = model_cost(spec, config.backbone).to_dict()
            more = {"seed": 0, "source": "tpe", "params": {}, "cost": cost}
            return store.add_trial(study.id, spec, until_flops=level, **more)[1].id

        running, width, step = {begin(8): 0, begin(16): 0}, 16, 0
        while not over.wait(1.0):
            step += 1
            for id in running:
                running[id] += 1
                n = running[id]
                at = {"step": n, "steps": 200, "flops": level * n / 200, "seconds": float(n)}
                store.add_progress([Progress(evaluation=id, loss=3 + 4 / n, **at)])
            if step % END_EVERY_S == 0:
                oldest = next(iter(running))
                del running[oldest]
                measures = {"bits_per_byte": 2.9, "bits_per_byte_se": 0.01, "flops": level}
                store.end_evaluation(
                    EvalResult(evaluation=oldest, status=Status.FINISHED, **measures)
                )
                width += 8
                running[begin(width)] = 0


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
