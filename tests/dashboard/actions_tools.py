"""What the tests of actions share: a tiny study, and commands whose workers are this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from patience import WAIT_S

import dashboard
from dashboard.actions.process import Action

ROOT = Path(dashboard.__file__).parents[1]
TEXT = "".join(f"def add_{n}(a, b):\n    return a + b + {n * n}\n\n" for n in range(2000))
STUDY = {
    "name": "tiny",
    "corpus": {"source": "corpus.txt"},
    "backbone": {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
    "recipe": {"batch_size": 2},
    "eval_tokens": 256,
    "budget": {"trials": 4, "trial_flops": 5e7},
    "warm_start": ["dense"],
    "space": {"methods": ["dense", "topk"], "depth": 1, "granularity": [1, 2]},
    "workers": {"count": 1, "device": "cpu"},
}
# Python reads it when it starts, before a command that a page started is run: such a one then
# trains in its own process, for a Ray would take longer to start than all else here.
_SITE = f"""
import sys
if "nas.process.recorded" in sys.orig_argv and {{"launch", "resume"}} & set(sys.orig_argv):
    sys.path += [{str(ROOT)!r}, {str(ROOT / "tests/nas/command")!r}]
    import time
    import nas.running.driver
    import nas.running.ray_pool
    from command_tools import PreparingPool, train_here

    begun = []

    def work(request):
        begun.append(request)
        if "launch" in sys.orig_argv and len(begun) > 1:
            time.sleep(2.0)  # so that there is something to stop
        return train_here(request)

    nas.running.driver.RENEW_SECONDS = 0.1
    PreparingPool.work = staticmethod(work)
    nas.running.ray_pool.RayPool = PreparingPool
"""


def furnish(folder: Path, monkeypatch) -> None:
    """Make `folder` the working directory, with a text, a cache and quick workers."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FFN_NAS_CACHE", str(folder / "cache"))
    for name in ("FFN_NAS_KERNELS", "FFN_NAS_PRODUCTS"):  # nothing is compiled or timed first
        monkeypatch.setenv(name, "torch")
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    paths = [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    Path("corpus.txt").write_text(TEXT)


def study_text(**changes: object) -> str:
    """The tiny study's file."""
    return yaml.safe_dump(STUDY | changes)


def until(found: Callable[[], bool], seconds: float = WAIT_S) -> bool:
    """Wait for it; whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.05)
    return False


def ended(action: Action) -> int | None:
    """Its exit code, once it has one."""
    until(lambda: action.code is not None)
    return action.code
